"""Any number of processes trains the same: the same samples, the same curve, the same weights on all of them."""

from __future__ import annotations

import signal

import numpy as np
import pytest
from training_rig import Job

from ocr_finetune_trainer.data.order import Order


def curve(job: Job) -> np.ndarray:
    losses = job.losses()
    return np.array([losses[step] for step in sorted(losses)])


@pytest.fixture(scope="module")
def alone(zygote, tmp_path_factory, prepared):
    """One process, its batches taken in three parts as three processes would."""
    import shutil

    root = tmp_path_factory.mktemp("alone") / "job"
    shutil.copytree(prepared, root, symlinks=True)
    training = {"epochs": 2, "batchSize": 4, "gradientAccumulation": 3, "learningRate": 0.002, "workers": 0}
    job = Job(root, training | {"augmentation": "none"})
    started = zygote.start(job)
    assert started.wait() == [0], started.text
    return job


def test_three_processes_train_like_one_that_accumulates(zygote, make_job, alone):
    job = make_job(batchSize=4, distributed={"devicesPerNode": 3})
    started = zygote.start(job, world=3)
    assert started.wait() == [0, 0, 0], started.text
    assert curve(job) == pytest.approx(curve(alone), rel=2e-3)


def test_norms_that_stand_still_make_the_number_of_processes_unseen(zygote, make_job):
    jobs = {}
    for world in (1, 2):
        jobs[world] = make_job(batchSize=12 // world, batchNorm="frozen", distributed={"devicesPerNode": world})
        started = zygote.start(jobs[world], world=world)
        assert started.wait() == [0] * world, started.text
    assert curve(jobs[2]) == pytest.approx(curve(jobs[1]), rel=2e-3)


def test_each_sample_is_trained_once_an_epoch_on_one_rank():
    order = Order(50, batch_size=12, seed=3)
    for epoch in range(3):
        seen = [
            int(index)
            for step in range(order.steps_per_epoch)
            for part in np.array_split(order.step(epoch, step), 3)
            for index in part
        ]
        assert sorted(seen) == list(range(50))


def test_ranks_hold_the_same_weights_and_their_own_statistics(zygote, make_job):
    job = make_job(batchSize=4, distributed={"devicesPerNode": 2})
    started = zygote.start(job, world=2)
    assert started.wait() == [0, 0], started.text
    newest = job.checkpoints()[0]
    own = newest.arrays("ranks")["model"]
    assert own.shape[0] == 2
    assert not np.array_equal(own[0], own[1]), "each rank saw other samples"
    model = newest.arrays("model")
    statistics = sorted(name for name in model if name.endswith(("._mean", "._variance")))
    packed = np.concatenate([model[name].ravel() for name in statistics])
    np.testing.assert_allclose(packed, own.mean(axis=0), rtol=1e-6)


def test_two_processes_go_on_bit_by_bit(zygote, make_job):
    calm = make_job(epochs=4, batchSize=4, distributed={"devicesPerNode": 2})
    assert zygote.start(calm, world=2).wait() == [0, 0]
    job = make_job(epochs=4, batchSize=4, distributed={"devicesPerNode": 2}, checkpoint={"everySteps": 3})
    started = zygote.start(job, world=2, hold_at=8)
    started.wait_for_hold()
    started.kill(rank=1)
    started.let_go()
    assert started.wait()[1] == -signal.SIGKILL
    assert started.wait()[0] != 0, "the survivor must not go on by itself"
    again = zygote.start(job, world=2)
    assert again.wait() == [0, 0], again.text
    final, expected = job.final(), calm.final()
    for name, value in expected.items():
        assert np.array_equal(final[name], value), name


def test_a_stop_of_one_rank_stops_all_at_the_same_step(zygote, make_job):
    job = make_job(batchSize=4, distributed={"devicesPerNode": 2})
    started = zygote.start(job, world=2, hold_at=3)
    started.wait_for_hold()
    started.kill(rank=1, number=signal.SIGTERM)
    started.let_go()
    assert started.wait() == [75, 75], started.text
    assert started.state(0).step == started.state(1).step == job.checkpoints()[0].step == 3


def test_a_run_goes_on_with_another_number_of_processes(zygote, make_job):
    job = make_job(epochs=4, batchSize=4, distributed={"devicesPerNode": 2})
    started = zygote.start(job, world=2, hold_at=7)
    started.wait_for_hold()
    started.kill(number=signal.SIGTERM)
    started.let_go()
    assert started.wait() == [75, 75]
    again = zygote.start(job, world=1)
    assert again.wait() == [0], again.text
    details = again.outcome().values["details"]
    assert details["resumedFromStep"] == 7
    assert details["globalBatch"] == 8
