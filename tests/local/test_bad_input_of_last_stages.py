"""What goes wrong in evaluation, export and prediction: a message, an exit code, and nothing lost."""

from __future__ import annotations

import json
import shutil

import pytest
from local_run import Run

from ocr_finetune_api.plan import Stage
from ocr_finetune_trainer.data.store import write_view


@pytest.fixture
def done(finished, tmp_path):
    """The finished demo again, to be changed."""
    run, _ = finished
    shutil.copytree(run.root, tmp_path / "workspace", symlinks=True)
    shutil.copy(run.manifest, tmp_path / "finetune.yaml")
    return Run(tmp_path / "finetune.yaml", tmp_path / "workspace")


def test_a_destination_that_cannot_be_written_is_named_and_the_export_kept(done, ocrft, tmp_path):
    (tmp_path / "taken").write_text("a file")
    done.change({"export.destination": str(tmp_path / "taken" / "models")})

    ended = ocrft("export", done.manifest, "--workspace", done.root)

    assert ended.returncode == 73, ended.stderr
    assert f"export.destination: {tmp_path / 'taken' / 'models'} cannot be written" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert (done.workspace.export / "paddle" / "inference.pdiparams").is_file()
    done.change({"export.destination": str(tmp_path / "models")})
    assert ocrft("export", done.manifest, "--workspace", done.root).returncode == 0
    assert len(list((tmp_path / "models").iterdir())) == 2


def test_a_test_set_that_training_has_seen_is_warned_of_and_refused_when_strict(done, ocrft):
    shutil.rmtree(done.workspace.data / "test")
    shutil.copytree(done.workspace.data / "train", done.workspace.data / "test")
    done.workspace.result(Stage.EVALUATE).unlink()

    warned = ocrft("evaluate", done.manifest, "--workspace", done.root)
    refused = ocrft("evaluate", done.manifest, "--workspace", done.root, "--strict", "--json")

    assert warned.returncode == 0, warned.stderr
    assert "samples of the test set are in the training data" in warned.stderr
    listed = json.loads((done.workspace.evaluation / "metrics.json").read_text())["sharedWithTraining"]
    assert refused.returncode == 65, refused.stderr
    (result,) = json.loads(refused.stdout)["stages"]
    assert len(result["problems"]) == 1 + len(listed) > 100
    assert f"{listed[0]['origin']}: the same picture is in training at {listed[0]['inTraining']}" in result["problems"]
    assert (done.workspace.evaluation / "report.html").is_file()


def test_a_test_set_without_a_usable_sample_is_an_error(done, ocrft):
    shutil.rmtree(done.workspace.data / "test")
    write_view(
        done.workspace.data / "test", cache=done.workspace.cache / "shards", shards=[], sources=["digits"], rows=[]
    )
    done.workspace.result(Stage.EVALUATE).unlink()

    ended = ocrft("evaluate", done.manifest, "--workspace", done.root)

    assert ended.returncode == 65, ended.stderr
    assert "the test set has no usable samples, so the model cannot be measured" in ended.stderr
    assert "give dataset.test more data" in ended.stderr


@pytest.mark.parametrize("name", ["paddle/inference.pdiparams", "onnx/inference.onnx"])
def test_an_exported_model_that_does_not_load_is_named(done, ocrft, digits, name):
    file = done.workspace.export / name
    file.write_bytes(file.read_bytes()[:1000])

    ended = ocrft("predict", file.parent, digits)

    assert ended.returncode == 65, ended.stderr
    assert "cannot load it" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_pictures_that_cannot_be_read_are_named_and_all_others_read(done, ocrft, digits, tmp_path):
    good = sorted(digits.rglob("*.png"))[:3]
    (tmp_path / "broken.png").write_bytes(good[0].read_bytes()[:60])

    ended = ocrft("predict", done.workspace.export / "onnx", good[0], tmp_path / "broken.png", *good[1:], "gone.png")

    assert ended.returncode == 65, ended.stderr
    assert [line.split("\t")[0] for line in ended.stdout.splitlines()] == [str(path) for path in good]
    assert f"{tmp_path / 'broken.png'}:" in ended.stderr
    assert "gone.png: No such file or directory" in ended.stderr
    assert "2 of 5 pictures could not be read" in ended.stderr
