"""What Paddle, the device and the network say becomes a message that a person can act on."""

from __future__ import annotations

import errno
import subprocess
import sys
import threading
import time

import pytest

from ocr_finetune_api.exit_codes import ExitCode, FailureClass
from ocr_finetune_api.plan import Stage
from ocr_finetune_trainer.telemetry.reporter import Reporter
from ocr_finetune_trainer.training.failures import explain, out_of_memory
from ocr_finetune_trainer.training.pulse import Outcome, Pulse, read_fatal
from ocr_finetune_trainer.training.supervisor import Supervisor

CUDA_MEMORY = (
    "ResourceExhaustedError: Out of memory error on GPU 0. Cannot allocate 1.5GB memory on GPU 0, 9.8GB is used"
)


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (RuntimeError(CUDA_MEMORY), ExitCode.DEVICE, "1.5GB, 9.8GB"),
        (MemoryError(), ExitCode.DEVICE, "out of memory"),
        (OSError(errno.ENOSPC, "No space left on device", "/x"), ExitCode.STORAGE, "/x: No space left"),
        (RuntimeError("CUDA error(719), unspecified launch failure"), ExitCode.DEVICE, "the device failed"),
        (RuntimeError("[../gloo/transport/tcp/pair.cc:589] Read error: Connection reset by peer"),
         ExitCode.PEER_UNAVAILABLE, "the connection to a peer broke"),
        (KeyError("gloo"), ExitCode.INTERNAL, "KeyError"),
    ],
)  # fmt: skip
def test_a_failure_says_what_it_means(error, code, said):
    outcome = explain(error, world=2, trace="trace")
    assert outcome.exit_code == code
    assert said in outcome.problems[0]
    assert outcome.peer == (code == ExitCode.PEER_UNAVAILABLE)


def test_out_of_memory_says_what_to_change():
    outcome = explain(RuntimeError(CUDA_MEMORY), world=1, trace="")
    assert "halve training.batchSize and double training.gradientAccumulation" in outcome.hint


def test_out_of_memory_says_what_to_write_in_numbers():
    error = out_of_memory(RuntimeError(CUDA_MEMORY), batch_size=48, accumulation=2, used={"device": 10 * 2**30})
    said = "the device is out of memory with 48 samples a forward pass (1.5GB, 9.8GB, device in use: 10.0 GiB)"
    assert list(error.problems) == [said]
    assert "write training.batchSize: 24 and training.gradientAccumulation: 4" in error.hint
    assert "batchSize" not in out_of_memory(MemoryError(), batch_size=1).hint, "half a sample can't be trained on"
    assert out_of_memory(RuntimeError("CUDA error(719)"), batch_size=8) is None


def test_a_failure_class_travels_with_the_outcome():
    outcome = Outcome(exit_code=81, problems=["x"], values={"failureClass": "OutOfMemory"})
    assert outcome.error().failure_class is FailureClass.OUT_OF_MEMORY


def supervisor_of(folder, code: str, *, first="pass", stall=60.0, grace=60.0, stop=None) -> Supervisor:
    """Watches a worker that does what `code` says, and what `first` says before its first sign of life."""
    text = (
        "import sys, time, os, signal; from pathlib import Path; "
        "from ocr_finetune_trainer.training.pulse import Pulse, Outcome, record_fatal; "
        f"folder = Path({str(folder)!r}); pulse = Pulse(folder, rank=0); {first}; pulse.start(); record_fatal(folder, 0); "
        f"{code}"
    )
    supervisor = Supervisor(
        folder,
        ranks=range(1),
        reporter=Reporter.for_stage(Stage.TRAIN, folder=folder),
        stop=stop or threading.Event(),
        grace_seconds=grace,
        stall_seconds=stall,
    )
    supervisor.begin(subprocess.Popen([sys.executable, "-c", text]))
    return supervisor


def wait_for(condition):
    end = time.monotonic() + 60
    while not (value := condition()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return value


def end_of(supervisor: Supervisor) -> Outcome:
    outcome = wait_for(supervisor.poll)
    supervisor.kill()
    return outcome


def test_a_killed_worker_is_named_with_its_signal(tmp_path):
    outcome = end_of(supervisor_of(tmp_path, "os.kill(os.getpid(), signal.SIGKILL)"))
    assert outcome.problems == ["rank 0 was ended by SIGKILL"]


def test_a_worker_that_crashes_leaves_its_last_words(tmp_path):
    outcome = end_of(supervisor_of(tmp_path, "os.kill(os.getpid(), signal.SIGSEGV)"))
    assert "segmentation fault" in outcome.problems[0]
    assert "segmentation fault" in read_fatal(tmp_path, 0)


def test_a_worker_that_does_nothing_for_too_long_is_ended(tmp_path):
    outcome = end_of(supervisor_of(tmp_path, "time.sleep(100)", first="pulse.phase('data')", stall=1.0))
    assert outcome.exit_code == ExitCode.INTERNAL
    assert "rank 0 has been at 'data' of step 0" in outcome.problems[0]
    assert "stallTimeout" in outcome.hint
    assert not outcome.peer
    assert outcome.error().failure_class is FailureClass.STALLED


def test_a_worker_that_waits_for_too_long_says_that_another_one_hangs(tmp_path):
    outcome = end_of(supervisor_of(tmp_path, "time.sleep(100)", first="pulse.waiting(True)", stall=3.0))
    assert outcome.peer
    assert "rank 0 has waited for others at 'start' of step 0" in outcome.problems[0]
    assert outcome.error().failure_class is FailureClass.STALLED


def test_a_frozen_worker_hangs_although_it_waited_for_others(tmp_path):
    freeze = "os.kill(os.getpid(), signal.SIGSTOP)"
    outcome = end_of(supervisor_of(tmp_path, freeze, first="pulse.waiting(True)", stall=1.0))
    assert not outcome.peer
    assert "rank 0 has been at 'start'" in outcome.problems[0]


def test_a_worker_that_does_not_hear_a_stop_is_ended_in_time(tmp_path):
    stop = threading.Event()
    stop.set()
    supervisor = supervisor_of(tmp_path, "time.sleep(100)", first="pulse.update(written=40)", grace=7.0, stop=stop)
    wait_for(supervisor.states)
    with pytest.raises(Exception, match="the checkpoint of step 40 counts") as caught:
        end_of(supervisor)
    assert caught.value.exit_code == ExitCode.STOPPED


def test_a_worker_hears_a_stop_and_a_request_for_a_profile(tmp_path):
    pulse = Pulse(tmp_path, rank=0, stop_file=tmp_path / "STOP").start()
    (tmp_path / "STOP").touch()
    assert pulse.stop.wait(10)
    (tmp_path / "profile").touch()
    assert pulse.profile.wait(10)
    pulse.finish(Outcome())
