"""Too little memory or disk: training says with numbers what to change, and keeps what it has."""

from __future__ import annotations

import os
import subprocess

import numpy as np
import pytest
from training_rig import TRAIN, digits, write_set


def test_out_of_memory_says_what_to_write(zygote, make_job):
    job = make_job(batchSize=TRAIN)
    # Lines of twenty digits need more than there is.
    write_set(
        job.workspace, "train", [(np.concatenate([picture] * 20, axis=1), text) for picture, text in digits(TRAIN)]
    )
    started = zygote.start(job, memory=600 * 2**20)
    assert started.wait() == [81], started.text
    outcome = started.outcome()
    assert f"the device is out of memory with {TRAIN} samples a forward pass" in outcome.problems[0]
    assert "GiB" in outcome.problems[0], "how much was in use"
    assert f"write training.batchSize: {TRAIN // 2} and training.gradientAccumulation: 2" in outcome.hint


@pytest.fixture
def small_disk():
    """Mounts a disk of some KiB; run again, it grows."""
    mounted = []

    def mount(folder, kibibytes):
        if os.geteuid() != 0:
            pytest.skip("mounting a small disk needs root")
        folder.mkdir(parents=True, exist_ok=True)
        how = "remount," if folder in mounted else ""
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"{how}size={kibibytes}k", "none", str(folder)], check=True)
        mounted.append(folder)

    yield mount
    for folder in set(mounted):
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_keeps_the_old_checkpoint_until_there_is_room_again(zygote, make_job, small_disk):
    calm = make_job(checkpoint={"everySteps": 2})
    assert zygote.start(calm).wait() == [0]
    one = sum(file.stat().st_size for file in calm.checkpoints()[0].path.iterdir()) // 1024
    job = make_job(checkpoint={"everySteps": 2})
    small_disk(job.workspace.checkpoints, int(1.8 * one))
    started = zygote.start(job)
    assert started.wait() == [74], started.text
    assert sorted(job.losses()) == list(range(12)), "training went on to its end"
    [kept] = job.checkpoints()
    assert kept.damage() is None
    said = job.events("storage")
    assert "No space left on device; training goes on, step" in said[0]["message"]
    outcome = started.outcome()
    assert (
        f"no checkpoint could be written: No space left on device; the one of step {kept.step} is whole"
        in (outcome.problems[0])
    )
    assert "free or add storage" in outcome.hint
    assert not list(job.workspace.checkpoints.glob(".*")), "nothing half-written is left"
    small_disk(job.workspace.checkpoints, 20 * one)
    again = zygote.start(job)
    assert again.wait() == [0], again.text
    assert again.outcome().values["details"]["resumedFromStep"] == kept.step
    for name, value in calm.final().items():
        assert np.array_equal(job.final()[name], value), name
