"""A checkpoint is whole or not there; the newest whole one wins; an older attempt can't write any more."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time

import numpy as np
import pytest

from ocr_finetune_api.exit_codes import InputMissingError, StopRequested, StorageError
from ocr_finetune_api.workspace import Workspace
from ocr_finetune_trainer.training import checkpoint
from ocr_finetune_trainer.training.checkpoint import Fence, Manifest
from ocr_finetune_trainer.training.writer import CheckpointWriter

ARRAYS = {"weight": np.arange(6, dtype=np.float32).reshape(2, 3)}


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    return Workspace(tmp_path, "run-1")


def save(workspace, step, *, metric=None, attempt=1, name="accuracy", **files):
    manifest = Manifest(step=step, attempt=attempt, execution="e", metric=metric, metric_name=name)
    return checkpoint.save(workspace.checkpoints, manifest, {"model": ARRAYS, **files})


def test_what_goes_in_comes_out(workspace):
    saved = save(workspace, 3, ema={"weight": ARRAYS["weight"] * 2}, optimizer={})
    loaded = checkpoint.load_latest(workspace)
    assert loaded.step == 3
    assert saved.path.name == "00000003.a1.xe"
    assert loaded.manifest.files.keys() == {"model.safetensors", "ema.safetensors"}
    np.testing.assert_array_equal(loaded.arrays("model")["weight"], ARRAYS["weight"])
    np.testing.assert_array_equal(loaded.weights()["weight"], ARRAYS["weight"] * 2)
    assert loaded.arrays("optimizer") == {}


@pytest.mark.parametrize("harm", ["cut", "change", "remove", "manifest", "newer"])
def test_a_damaged_one_is_skipped_and_named(workspace, harm):
    save(workspace, 1)
    broken = save(workspace, 2).path
    file = broken / "model.safetensors"
    content = file.read_bytes()
    if harm == "cut":
        file.write_bytes(content[:-1])
    elif harm == "change":
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif harm == "remove":
        file.unlink()
    elif harm == "manifest":
        (broken / "manifest.json").write_text("{", encoding="utf-8")
    else:
        values = json.loads((broken / "manifest.json").read_text(encoding="utf-8"))
        (broken / "manifest.json").write_text(json.dumps({**values, "schemaVersion": 99}), encoding="utf-8")
    told = []
    assert checkpoint.load_latest(workspace, report=told.append).step == 1
    assert [damage.path for damage in told] == [broken]
    if harm == "newer":
        assert "newer version (schemaVersion 99" in str(told[0])


def test_the_best_is_the_best_and_of_equal_ones_the_later(workspace):
    for step, metric in ((1, 0.5), (2, 0.9), (3, 0.9), (4, 0.7), (5, None)):
        save(workspace, step, metric=metric)
    assert checkpoint.load_best(workspace).step == 3


def test_of_error_rates_the_lowest_is_the_best(workspace):
    for step, metric in ((1, 0.5), (2, 0.1), (3, 0.9)):
        save(workspace, step, metric=metric, name="characterErrorRate")
    assert checkpoint.load_best(workspace).step == 2


def test_without_any_the_reader_is_told_what_to_do(workspace):
    with pytest.raises(InputMissingError, match="no usable checkpoint"):
        checkpoint.load_best(workspace)


def test_the_best_and_the_newest_stay(workspace):
    for step, metric in ((1, 0.9), (2, 0.5), (3, 0.6), (4, None)):
        save(workspace, step, metric=metric)
    checkpoint.prune(workspace.checkpoints, keep_last=2)
    assert [item.step for item in checkpoint.find(workspace.checkpoints)[0]] == [4, 3, 1]
    assert not list(workspace.checkpoints.glob(".*"))


def test_an_older_attempt_can_neither_write_nor_begin(workspace):
    old, new = (Fence(workspace.fence, attempt=number, execution=f"e{number}") for number in (1, 2))
    old.claim()
    old.check()
    new.claim()
    with pytest.raises(StopRequested, match="attempt 2 .* has taken this run over from attempt 1"):
        checkpoint.save(workspace.checkpoints, Manifest(step=5), {"model": ARRAYS}, fence=old)
    assert checkpoint.find(workspace.checkpoints) == ([], [])
    assert not list(workspace.checkpoints.glob(".*"))
    with pytest.raises(StopRequested):
        old.claim()


def test_half_a_fence_of_a_killed_process_is_removed(workspace):
    left = workspace.fence.with_name(f".{workspace.fence.name}.4711")
    left.parent.mkdir(parents=True, exist_ok=True)
    left.write_text('{"attem')
    Fence(workspace.fence, attempt=2, execution="e").claim()
    assert [path.name for path in workspace.fence.parent.glob(".*")] == []
    Fence(workspace.fence, attempt=2, execution="e").check()


def test_a_resumed_execution_of_an_attempt_takes_over(workspace):
    first, second = (Fence(workspace.fence, attempt=1, execution=name) for name in ("a", "b"))
    first.claim()
    second.claim()
    second.check()
    with pytest.raises(StopRequested):
        first.check()


def writer_for(workspace, **options):
    fence = Fence(workspace.fence, attempt=1, execution="e")
    defaults = {"keep_last": 2, "patience_seconds": 60.0, "tell": [].append}
    return CheckpointWriter(workspace.checkpoints, fence=fence, **(defaults | options))


def manifest_of(step: int) -> Manifest:
    return Manifest(step=step, execution="e")


@pytest.mark.timeout(120)  # a loop that waited would wait for ever
def test_the_loop_does_not_wait_for_the_disk(workspace):
    # Nothing gets its name before the fence was read, and who reads a pipe waits for a writer.
    workspace.fence.parent.mkdir(parents=True)
    os.mkfifo(workspace.fence)
    writer = writer_for(workspace)
    writer.save(manifest_of(1), {"model": {"weight": np.zeros(20_000, dtype=np.float32)}})
    assert writer.busy
    assert writer.written is None
    with workspace.fence.open("w"):
        workspace.fence.unlink()
    writer.wait()
    assert writer.written.step == 1


@pytest.fixture
def small_disk(workspace):
    """A disk of 300 KiB where the checkpoints go."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    workspace.checkpoints.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "none", str(workspace.checkpoints)], check=True)
    yield workspace.checkpoints
    subprocess.run(["umount", str(workspace.checkpoints)], check=True)


def test_a_full_disk_keeps_the_old_checkpoint_and_training_goes_on(workspace, small_disk):
    told: list[str] = []
    writer = writer_for(workspace, tell=told.append)
    writer.save(manifest_of(1), {"model": {"weight": np.zeros(20_000, dtype=np.float32)}})
    writer.wait()
    writer.save(manifest_of(2), {"model": {"weight": np.zeros(70_000, dtype=np.float32)}})
    writer.wait()
    assert "step 2 could not be written" in told[0]
    assert "No space left on device" in told[0]
    assert "step 1 is kept" in told[0]
    assert checkpoint.load_latest(workspace).step == 1
    assert [path.name for path in small_disk.iterdir()] == ["00000001.a1.xe"]
    writer.save(manifest_of(3), {"model": {"weight": np.zeros(20_000, dtype=np.float32)}})
    writer.wait()
    assert "step 3 is saved" in told[1]


def test_a_disk_that_stays_full_ends_training_after_a_while(workspace, small_disk):
    writer = writer_for(workspace, patience_seconds=0.0)
    writer.save(manifest_of(2), {"model": {"weight": np.zeros(200_000, dtype=np.float32)}})
    with pytest.raises(StorageError, match="no checkpoint could be written: .*none of this attempt exists"):
        writer.wait()
        time.sleep(0.01)
        writer.wait()


def test_what_a_killed_writer_left_is_removed(workspace):
    aside = workspace.checkpoints / ".00000001.a1.xe.123"
    aside.mkdir(parents=True)
    (aside / "model.safetensors").write_bytes(b"half")
    save(workspace, 1)
    checkpoint.clean(workspace.checkpoints)
    assert [path.name for path in workspace.checkpoints.iterdir()] == ["00000001.a1.xe"]


def test_readers_never_see_half_a_checkpoint(workspace):
    """A step is written again and again while another thread reads."""
    save(workspace, 1)
    done = threading.Event()
    wrong: list[str] = []

    def read():
        while not done.is_set():
            found, damaged = checkpoint.find(workspace.checkpoints)
            wrong.extend(str(item) for item in damaged if "can't be read" not in str(item))
            wrong.extend("half" for item in found if not item.manifest.files)

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(30):
        save(workspace, 1)
    done.set()
    reader.join()
    assert not wrong
