"""A training that was interrupted ends like one that was not: the same losses, the same weights, bit by bit."""

from __future__ import annotations

import signal

import numpy as np

from ocr_finetune_trainer.training import checkpoint


def assert_same(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert np.array_equal(value, second[name]), name


def test_it_trains(zygote, make_job):
    job = make_job(epochs=4, ema=0.5)
    started = zygote.start(job)
    assert started.wait() == [0], started.text
    outcome = started.outcome()
    assert outcome.values["metrics"]["steps"] == 24
    assert outcome.values["details"]["ended"] == "all epochs are trained"
    losses = job.losses()
    assert sorted(losses) == list(range(24))
    assert np.mean([losses[step] for step in range(18, 24)]) < 0.7 * np.mean([losses[step] for step in range(6)])


def test_a_stopped_run_goes_on_bit_by_bit(zygote, make_job):
    calm = make_job(epochs=4)
    assert zygote.start(calm).wait() == [0]
    job = make_job(epochs=4)
    started = zygote.start(job, hold_at=8)
    started.wait_for_hold()
    started.kill(number=signal.SIGTERM)
    started.let_go()
    assert started.wait() == [75], started.text
    assert job.checkpoints()[0].step == 8
    again = zygote.start(job)
    assert again.wait() == [0], again.text
    assert again.outcome().values["details"]["resumedFromStep"] == 8
    assert job.losses() == calm.losses()
    assert_same(job.final(), calm.final())


def test_a_killed_run_goes_on_bit_by_bit(zygote, make_job):
    calm = make_job(epochs=4)
    assert zygote.start(calm).wait() == [0]
    job = make_job(epochs=4, checkpoint={"everySteps": 2})
    started = zygote.start(job, hold_at=11)
    started.wait_for_hold()
    started.kill()
    assert started.wait() == [-signal.SIGKILL]
    again = zygote.start(job)
    assert again.wait() == [0], again.text
    assert again.outcome().values["details"]["resumedFromStep"] >= 8
    assert job.losses() == calm.losses()
    assert_same(job.final(), calm.final())
    assert not list(job.workspace.checkpoints.glob(".*")), "half-written files are left"


def test_a_damaged_checkpoint_is_skipped_and_named(zygote, make_job):
    job = make_job(checkpoint={"everySteps": 2, "keepLast": 10})
    assert zygote.start(job).wait() == [0]
    newest, *_ = job.checkpoints()
    file = newest.path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    again = zygote.start(job)
    assert again.wait() == [0], again.text
    assert job.events("damaged-checkpoint")[0]["path"] == newest.path.name
    assert job.events("resumed")[0]["step"] < newest.step
    assert checkpoint.load_latest(job.workspace).step == 12
