"""What happens to a run does not lose its work: Ctrl-C, SIGKILL, two at once."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from local_run import Run, command, environment

from holding import Hold, hold
from ocr_finetune_trainer.training.pulse import STOP, read_state

DEADLINE_SECONDS = 300


def start(run: Run, hold: Hold) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command("run", run.manifest, "--workspace", run.root),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment() | hold.environment,
    )


@pytest.fixture
def held(tmp_path) -> Callable[[int], Hold]:
    """Makes a training stand still where it is about to save a step."""
    return lambda step: hold(tmp_path / f"hold-{step}", f"*/checkpoints/{step:08}.*")


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "the condition did not come true"
        time.sleep(0.05)


def steps_done(run: Run) -> int:
    """Steps of the newest checkpoint."""
    folder = run.workspace.checkpoints
    names = [path.name for path in folder.iterdir() if path.name[0].isdigit()] if folder.exists() else []
    return max((int(name.split(".")[0]) for name in names), default=0)


@pytest.fixture
def make_short(few, make_run) -> Callable[[Path], Run]:
    """A run on a few digits with many steps."""

    def make(folder: Path) -> Run:
        run = make_run(folder, evaluation__gate={}, export__formats=["paddle"])
        run.change(
            {
                "dataset.train": [{"name": "digits", "uri": str(few), "format": "char-folders"}],
                "training": {
                    "epochs": 20,
                    "batchSize": 16,
                    "checkpoint": {"everySteps": 5},
                    "evaluate": {"every": "20 steps"},
                },
            }
        )
        return run

    return make


@pytest.fixture
def short(tmp_path, make_short) -> Run:
    """One of them."""
    return make_short(tmp_path)


def test_ctrl_c_stops_with_a_checkpoint_and_training_goes_on_from_there(short, ocrft, held):
    hold = held(25)
    process = start(short, hold)
    wait_for(lambda: steps_done(short) == 20, process)
    folder = _folder_of_training(short)
    process.send_signal(signal.SIGINT)
    _wait_until_a_stop_is_heard(folder, process)
    hold.let_go()
    _, errors = process.communicate(timeout=DEADLINE_SECONDS)
    assert process.returncode == 75, errors
    assert "Traceback" not in errors
    stopped_at = steps_done(short)
    assert 20 <= stopped_at < 120
    done = ocrft("train", short.manifest, "--workspace", short.root)
    assert done.returncode == 0, done.stdout + done.stderr
    assert short.result("train").details["resumedFromStep"] == stopped_at


def test_a_killed_run_ends_like_one_that_was_not(short, ocrft, tmp_path, make_short, held):
    process = start(short, held(35))
    wait_for(lambda: steps_done(short) == 30, process)
    _kill_training(short)
    process.communicate(timeout=DEADLINE_SECONDS)
    assert process.returncode not in (0, 75)
    assert ocrft("run", short.manifest, "--workspace", short.root).returncode == 0
    calm = make_short(tmp_path / "calm")
    for stage in ("prepare", "train", "evaluate"):
        assert ocrft(stage, calm.manifest, "--workspace", calm.root).returncode == 0
    assert short.result("evaluate").metrics["best"] == calm.result("evaluate").metrics["best"]


def test_two_runs_on_one_workspace_do_not_mix(short, ocrft, held):
    hold = held(10)
    process = start(short, hold)
    wait_for(lambda: steps_done(short) == 5, process)
    second = ocrft("run", short.manifest, "--workspace", short.root)
    assert second.returncode == 73
    assert f"process {process.pid}" in second.stderr
    folder = _folder_of_training(short)
    process.send_signal(signal.SIGTERM)
    _wait_until_a_stop_is_heard(folder, process)
    hold.let_go()
    process.communicate(timeout=DEADLINE_SECONDS)
    assert process.returncode == 75


def test_nothing_outlives_a_killed_engine(short, held):
    process = start(short, held(10))
    wait_for(lambda: steps_done(short) == 5, process)
    assert len(_processes_of(short)) > 1
    process.kill()
    process.communicate(timeout=DEADLINE_SECONDS)
    end = time.monotonic() + DEADLINE_SECONDS
    while _processes_of(short):
        assert time.monotonic() < end, f"still there: {_processes_of(short)}"
        time.sleep(0.1)


def _folder_of_training(run: Run) -> Path:
    """Where the process that trains leaves its signs of life."""
    [line] = [line for line in _processes_of(run).values() if "training.worker" in line]
    _, _, rest = line.partition("--folder ")
    return Path(rest.split()[0])


def _wait_until_a_stop_is_heard(folder: Path, process: subprocess.Popen[str]) -> None:
    """Waits until the process that trains has looked for a request to stop after there was one, or all is over."""
    end = time.monotonic() + DEADLINE_SECONDS

    def wait(condition: Callable[[], bool]) -> None:
        while process.poll() is None and not condition():
            assert time.monotonic() < end, "nobody hears it"
            time.sleep(0.02)

    def beat() -> float:
        state = read_state(folder, 0)
        return state.beat if state else math.inf

    wait((folder / STOP).exists)
    # It looks after each sign of life: with the second one from now on it has looked.
    for _ in range(2):
        before = beat()
        wait(lambda before=before: beat() > before)


def _processes_of(run: Run) -> dict[int, str]:
    """Processes that work on a run, by their command lines."""
    found = {}
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or ())
        if str(run.root) in line and process.pid != os.getpid():
            found[process.pid] = line
    return found


def _kill_training(run: Run) -> None:
    """Kills every process of the training stage at once, as a machine that goes dark does."""
    victims = [pid for pid, line in _processes_of(run).items() if " run " not in line]
    assert victims, json.dumps(_processes_of(run))
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
