"""The learning rates equal PaddleOCR's, step by step."""

import json
from pathlib import Path

import pytest

from ocr_finetune_trainer.training.schedule import Schedule

FIGURES = json.loads((Path(__file__).parent / "figures/learning_rates.json").read_text(encoding="utf-8"))
EPOCH = FIGURES["steps_per_epoch"]
STEPS = FIGURES["steps"]
SCHEDULES = {
    "Cosine lr=0.001 epochs=6 warmup=2": Schedule(shape="cosine", peak=1e-3, steps=6 * EPOCH, warmup=2 * EPOCH),
    "Cosine lr=0.0005 epochs=6 warmup=0": Schedule(shape="cosine", peak=5e-4, steps=6 * EPOCH),
    "Piecewise values=0.001,0.0001 decay_epochs=4 warmup=1": Schedule(
        shape="piecewise", peak=1e-3, steps=6 * EPOCH, warmup=EPOCH, boundaries=[4 * EPOCH], factor=0.1
    ),
    "Linear lr=0.001 epochs=6 end=0 power=1": Schedule(shape="linear", peak=1e-3, steps=6 * EPOCH),
    "Const lr=0.0002 warmup=1": Schedule(shape="constant", peak=2e-4, steps=6 * EPOCH, warmup=EPOCH),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_equals_the_reference(name):
    schedule = SCHEDULES[name]
    assert [schedule(step) for step in range(STEPS)] == pytest.approx(FIGURES["curves"][name], rel=1e-9, abs=1e-12)


def test_one_cycle_rises_to_its_peak_and_falls_to_almost_nothing():
    schedule = Schedule(shape="one-cycle", peak=1e-2, steps=100)
    rates = [schedule(step) for step in range(101)]
    assert max(rates) == pytest.approx(1e-2)
    assert rates.index(max(rates)) == 30
    assert rates[0] == pytest.approx(4e-4)
    assert rates[-1] == pytest.approx(1e-6)
    assert rates[:31] == sorted(rates[:31])
    assert rates[30:] == sorted(rates[30:], reverse=True)


def test_added_epochs_leave_what_was_trained_as_it_was():
    planned = Schedule(shape="cosine", peak=1e-3, steps=60)
    longer = Schedule(shape="cosine", peak=1e-3, steps=100, extended_from=60)
    assert [longer(step) for step in range(60)] == [planned(step) for step in range(60)]
    assert longer(60) == longer(79) == pytest.approx(1e-4)
    assert longer(90) == pytest.approx(5e-5)
    assert longer(100) == pytest.approx(0.0)
