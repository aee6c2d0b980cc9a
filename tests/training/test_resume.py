"""A training that was interrupted ends like one that was not: the same losses, the same weights, bit by bit."""

from __future__ import annotations

import signal

import numpy as np
from training_rig import wait_for

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
    # Long enough for the signal to come before the end, also where progress is seen late.
    calm = make_job(epochs=10)
    assert zygote.start(calm).wait() == [0]
    job = make_job(epochs=10)
    started = zygote.start(job)
    wait_for(lambda: started.step() >= 4)
    started.kill(number=signal.SIGTERM)
    assert started.wait() == [75], started.text
    stopped_at = job.checkpoints()[0].step
    assert 4 <= stopped_at < 60
    again = zygote.start(job)
    assert again.wait() == [0], again.text
    assert again.outcome().values["details"]["resumedFromStep"] == stopped_at
    assert job.losses() == calm.losses()
    assert_same(job.final(), calm.final())


def test_a_killed_run_goes_on_bit_by_bit(zygote, make_job):
    calm = make_job(epochs=10)
    assert zygote.start(calm).wait() == [0]
    job = make_job(epochs=10, checkpoint={"everySteps": 2})
    started = zygote.start(job)
    wait_for(lambda: started.step() >= 7)
    started.kill()
    assert started.wait() == [-signal.SIGKILL]
    again = zygote.start(job)
    assert again.wait() == [0], again.text
    assert again.outcome().values["details"]["resumedFromStep"] >= 4
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
