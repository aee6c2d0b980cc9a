"""What training refuses or begins anew, said through the command line with its reason and exit code; nothing is lost."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Callable

import pytest
from local_run import Run, command, environment

from ocr_finetune_trainer.training import checkpoint


@pytest.fixture(scope="module")
def trained(tmp_path_factory, few, make_run, ocrft) -> Run:
    """A run that is prepared and trained for an epoch."""
    run = make_run(tmp_path_factory.mktemp("trained"), training__epochs=1, training__batchSize=16)
    run.change(
        {
            "dataset.train": [{"name": "digits", "uri": str(few), "format": "char-folders"}],
            "training.learningRate": 0.001,
            "training.workers": 0,
        }
    )
    for stage in ("prepare", "train"):
        done = ocrft(stage, run.manifest, "--workspace", run.root)
        assert done.returncode == 0, done.stdout + done.stderr
    return run


@pytest.fixture
def copy(trained, tmp_path) -> Run:
    """A copy of that run, to be spoilt."""
    shutil.copytree(trained.root, tmp_path / "workspace", symlinks=True)
    shutil.copy(trained.manifest, tmp_path / "finetune.yaml")
    return Run(tmp_path / "finetune.yaml", tmp_path / "workspace")


def newest(run: Run) -> checkpoint.Checkpoint:
    return checkpoint.find(run.workspace.checkpoints)[0][0]


def rewrite(found: checkpoint.Checkpoint, change: Callable[[dict], None]) -> None:
    file = found.path / "manifest.json"
    values = json.loads(file.read_text(encoding="utf-8"))
    change(values)
    file.write_text(json.dumps(values), encoding="utf-8")


def cut(found: checkpoint.Checkpoint) -> None:
    file = found.path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])


@pytest.mark.parametrize(
    ("spoil", "code", "said"),
    [
        (lambda found: rewrite(found, lambda values: values["identity"].update({"model.name": "CRNN_r34_vd"})), 78,
         "model.name: 'CRNN_r34_vd' there, 'MobileNetV3_small_ctc' here"),
        (lambda found: rewrite(found, lambda values: values["identity"].update({"model.dictionary": "x"})), 78,
         "model.dictionary: 'x' there"),
        (lambda found: rewrite(found, lambda values: values.update(schemaVersion=9)), 78,
         "was written by a newer version (schemaVersion 9, known here is 1)"),
        (cut, 66, "model.safetensors has 1000 bytes instead of"),
    ],
    ids=["other-model", "other-dictionary", "newer-version", "truncated"],
)  # fmt: skip
def test_another_run_s_checkpoint_that_can_t_be_used_is_refused(copy, ocrft, spoil, code, said):
    other = copy.root.parent / "other"
    shutil.copytree(newest(copy).path, other / newest(copy).path.name)
    [source] = checkpoint.find(other)[0]
    spoil(source)
    copy.change({"training.resumeFrom": str(source.path)})
    shutil.rmtree(copy.workspace.checkpoints)
    done = ocrft("train", copy.manifest, "--workspace", copy.root)
    assert done.returncode == code, done.stdout + done.stderr
    assert said in done.stderr
    assert "training.resumeFrom" in done.stderr
    assert "Traceback" not in done.stderr
    assert not copy.workspace.checkpoints.exists() or not checkpoint.find(copy.workspace.checkpoints)[0]


def test_a_step_larger_than_the_data_is_refused_with_what_would_do(copy, ocrft):
    copy.change({"training.batchSize": 4000})
    done = ocrft("train", copy.manifest, "--workspace", copy.root)
    assert done.returncode == 78, done.stdout + done.stderr
    assert "a step takes 4000 × 1 = 4000 samples, but there are only" in done.stderr
    assert "write batchSize:" in done.stderr
    assert newest(copy).step > 0, "what was trained is still there"


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a process its own /dev/shm needs root")
def test_too_little_shared_memory_is_found_before_a_process_starts(copy):
    copy.change({"training.epochs": 2})
    little = "mount -t tmpfs -o size=512k none /dev/shm && exec "
    line = little + shlex.join(command("train", copy.manifest, "--workspace", copy.root))
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", line], capture_output=True, text=True, env=environment(), check=False
    )
    assert done.returncode == 78, done.stdout + done.stderr
    assert "shared memory has 0 MiB free, and 1 processes need about 1 MiB of it" in done.stderr
    assert "pods.sharedMemory" in done.stderr


def test_a_changed_manifest_begins_anew_and_says_for_each_field_why(copy, ocrft):
    before = newest(copy).path.name
    copy.change({"training.learningRate": 0.002, "training.seed": 7, "training.earlyStopping": {"patience": 3}})
    done = ocrft("train", copy.manifest, "--workspace", copy.root)
    assert done.returncode == 0, done.stdout + done.stderr
    said = " ".join((done.stdout + done.stderr).split())
    assert "training.learningRate: was 0.001, is now 0.002" in said
    assert "training.seed: was" in said
    assert "patience" not in said, "what may change is no reason"
    kept = copy.workspace.folder / "checkpoints.before-1"
    assert before in [path.name for path in kept.iterdir()], "nothing is lost"


def test_a_damaged_checkpoint_of_the_run_itself_is_skipped_and_named(copy, ocrft):
    cut(newest(copy))
    name = newest(copy).path.name
    copy.change({"training.epochs": 2})
    done = ocrft("train", copy.manifest, "--workspace", copy.root)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"skipped a damaged checkpoint: {name}: model.safetensors has 1000 bytes" in done.stdout + done.stderr
    assert newest(copy).step > 0


def test_the_lock_of_a_run_that_is_dead_is_taken_over(copy, ocrft):
    owner = {"pid": 2**22 - 1, "host": "gone", "since": "2020-01-01T00:00:00+00:00"}
    (copy.workspace.folder / "lock").write_text(json.dumps(owner), encoding="utf-8")
    done = ocrft("train", copy.manifest, "--workspace", copy.root)
    assert done.returncode == 0, done.stdout + done.stderr
