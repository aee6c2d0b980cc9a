"""Runs trainings that are killed, stopped and starved of disk at random moments, and compares their ends with a calm one's.

`python tests/training/chaos.py --count 1000` is what `make chaos` does; the tests run a few dozen.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from training_rig import TRAIN, VALIDATION, Job, Started, Zygote, digits, wait_for, write_set

from ocr_finetune_trainer.dictionary import Dictionary

STEPS = 12
EVERY = 2
TRAINING = {
    "epochs": 2, "batchSize": 8, "learningRate": 0.002, "workers": 0, "augmentation": "none",
    "checkpoint": {"everySteps": EVERY, "keepLast": 2}, "evaluate": {"every": "1 epoch"},
}  # fmt: skip
FAULTS = ("kill", "stop", "freeze", "damage")
ATTEMPTS = 12


@dataclass(frozen=True)
class Story:
    """What happened to one training.

    Attributes:
        seed: Decides everything.
        world: Processes.
        faults: What ended each attempt; none for the last one, which came to its end.
        lost: Steps that were trained again after each fault.
    """

    seed: int
    world: int
    faults: tuple[str, ...]
    lost: tuple[int, ...]


def prepare(root: Path) -> Path:
    """A workspace with prepared digits."""
    workspace = Job(root, {}).workspace
    write_set(workspace, "train", digits(TRAIN))
    write_set(workspace, "validation", digits(VALIDATION, start=TRAIN))
    Dictionary(tuple("0123456789"), use_space=False).save(workspace.dictionary)
    return root


def job_of(prepared: Path, root: Path, *, world: int) -> Job:
    """A training in a copy of the workspace, with the same global batch whatever the number of processes."""
    shutil.copytree(prepared, root, symlinks=True)
    training = {**TRAINING, "batchSize": TRAINING["batchSize"] // world}
    return Job(root, training, {}, {"device": "cpu", "devicesPerNode": world})


def calm(zygote: Zygote, prepared: Path, folder: Path, *, world: int) -> Job:
    """What the others are compared with."""
    job = job_of(prepared, folder / f"calm-{world}", world=world)
    started = zygote.start(job, world=world)
    assert started.wait() == [0] * world, started.text
    return job


def run_one(zygote: Zygote, prepared: Path, folder: Path, expected: Job, *, seed: int, world: int) -> Story:
    """One training with faults.

    Raises:
        AssertionError: It did not end like the calm one, lost more than the interval, hung, or left files behind.
    """
    chance = random.Random(seed)
    job = job_of(prepared, folder / f"story-{seed}", world=world)
    faults: list[str] = []
    lost: list[int] = []
    for attempt in range(ATTEMPTS):
        with _full_disk(job, chance) if attempt == 0 and chance.random() < 0.2 else _as_it_is() as starved:
            started = zygote.start(job, world=world)
            fault = chance.choice(FAULTS) if attempt < 3 else ""
            reached = _suffer(started, fault, chance, world=world)
            codes = started.wait()
        done = codes == [0] * world
        # What came after the end, or was over before it, changed nothing.
        faults.append(("none" if done else fault) + ("+disk" if starved else ""))
        if done:
            break
        if not starved:
            lost.append(max(reached - _newest(job), 0))
            # One is written while the next steps are trained, and the next begins when it is whole: on a slow disk the
            # fault finds a training that waits for this at the end of a second interval.
            assert lost[-1] <= 2 * EVERY, f"seed {seed}: {lost[-1]} steps lost, saved every {EVERY}"
        if fault == "damage":
            _damage(job, chance)
    else:
        raise AssertionError(f"seed {seed}: did not end within {ATTEMPTS} attempts: {started.text}")
    _compare(job, expected, seed=seed)
    shutil.rmtree(job.root)
    return Story(seed, world, tuple(faults), tuple(lost))


def _suffer(started: Started, fault: str, chance: random.Random, *, world: int) -> int:
    """Does something to a training at a random moment; returns the step it had reached."""
    if not fault:
        started.wait()
        return STEPS
    moment = chance.random()
    at = int(moment * STEPS)
    victim = chance.randrange(world)
    ended = started.zygote.ended
    wait_for(lambda: started.step(victim) >= at or all(pid in ended for pid in started.pids), what=started.text)
    time.sleep(chance.random() * 0.05)
    if fault == "stop":
        started.kill(victim, signal.SIGTERM)
        _settle(started)
    elif fault == "freeze":
        started.kill(victim, signal.SIGSTOP)
        time.sleep(0.1 + chance.random() * 0.2)
        reached = started.step(victim)
        # Nobody supervises here: what the supervisor does to a gang with a frozen rank is done by hand.
        if chance.random() < 0.5:
            started.kill(victim, signal.SIGCONT)
            _settle(started)
            return max(reached, started.step(victim))
    else:
        started.kill(victim)
    reached = max(started.step(rank) for rank in range(world))
    if world > 1 or fault == "freeze":
        time.sleep(0.1)
        for rank in range(world):
            started.kill(rank)
    return reached


def _settle(started: Started) -> None:
    """Waits for the end; a rank that is left alone is ended, as its supervisor would."""
    ended = started.zygote.ended

    def over() -> bool:
        codes = [ended.get(pid) for pid in started.pids]
        if any(code not in (None, 0, 75) for code in codes):
            for rank in range(len(codes)):
                started.kill(rank)
        return None not in codes

    wait_for(over, what=started.text)


def _newest(job: Job) -> int:
    found = job.checkpoints()
    return found[0].step if found else 0


def _damage(job: Job, chance: random.Random) -> None:
    """Cuts the newest checkpoint short: the one before it must do."""
    found = job.checkpoints()
    if len(found) > 1:
        file = found[0].path / chance.choice(["model.safetensors", "optimizer.safetensors", "manifest.json"])
        os.truncate(file, file.stat().st_size // 2)


@contextmanager
def _as_it_is() -> Iterator[bool]:
    yield False


@contextmanager
def _full_disk(job: Job, chance: random.Random) -> Iterator[bool]:
    """Gives the checkpoints a disk that is full from the second or third one on; needs root."""
    folder = job.workspace.checkpoints
    if os.geteuid() != 0:
        yield False
        return
    folder.mkdir(parents=True)
    size = chance.randint(1_200, 5_000)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "none", str(folder)], check=True)
    try:
        yield True
    finally:
        # What was saved before the disk was full comes along to the larger one.
        aside = folder.with_name("kept")
        shutil.copytree(folder, aside, ignore=shutil.ignore_patterns(".*"))
        subprocess.run(["umount", str(folder)], check=True)
        folder.rmdir()
        aside.rename(folder)


def _compare(job: Job, expected: Job, *, seed: int) -> None:
    final, wanted = job.final(), expected.final()
    assert final.keys() == wanted.keys(), f"seed {seed}"
    for name, value in wanted.items():
        assert np.array_equal(final[name], value), f"seed {seed}: {name} differs"
    left = [path.name for path in job.workspace.folder.rglob(".*")]
    assert not left, f"seed {seed}: left behind: {left}"
    assert len(job.checkpoints()) <= TRAINING["checkpoint"]["keepLast"] + 1


def main() -> int:
    """Tells many stories; 0 if all ended well."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="ocrft-chaos-"))
    (folder / "zygote").mkdir()
    zygote = Zygote(folder / "zygote")
    counts: Counter[str] = Counter()
    failed: list[int] = []
    most = 0
    try:
        prepared = prepare(folder / "prepared")
        expected = {world: calm(zygote, prepared, folder, world=world) for world in (1, 2)}
        for seed in range(options.seed, options.seed + options.count):
            world = 2 if seed % 4 == 3 else 1
            try:
                story = run_one(zygote, prepared, folder, expected[world], seed=seed, world=world)
            except AssertionError as error:
                failed.append(seed)
                print(f"{seed}: FAILED: {error}", flush=True)
                continue
            counts.update(story.faults)
            most = max(most, *story.lost, 0)
            print(f"{seed}: {world} process(es), {', '.join(story.faults)}", flush=True)
    finally:
        zygote.close()
        shutil.rmtree(folder, ignore_errors=True)
    print(
        f"{options.count - len(failed)} of {options.count} trainings ended bit by bit like the calm one; "
        f"faults: {dict(counts)}; most steps lost: {most}; failed: {failed or 'none'}"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
