"""`ocrft cache` and `ocrft convert`, as people type them."""

from __future__ import annotations

import json

import pytest
import yaml
from typer.testing import CliRunner

import good_data
from ocr_finetune_trainer.cli import app


def ocrft(*words: object):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def workspace(tmp_path):
    """A workspace with a checked data set, which no run uses yet."""
    good_data.lines(tmp_path / "data", count=20)
    document = {
        "apiVersion": "ocrfinetune.dev/v1alpha1",
        "kind": "OCRFineTune",
        "metadata": {"name": "checked"},
        "spec": {
            "model": {"name": "MobileNetV3_small_ctc", "pretrained": "none"},
            "dataset": {"train": [{"uri": "data"}]},
        },
    }
    (tmp_path / "finetune.yaml").write_text(yaml.safe_dump(document))
    done = ocrft("check", tmp_path / "finetune.yaml", "--workspace", tmp_path / "ws")
    assert done.exit_code == 0, done.output
    return tmp_path / "ws"


def test_the_cache_is_listed_and_pruned(workspace):
    listed = ocrft("cache", "list", "--workspace", workspace)
    assert listed.exit_code == 0
    assert "shard" in listed.output
    assert "no run" in listed.output
    (entry,) = json.loads(ocrft("cache", "list", "--workspace", workspace, "--json").stdout)
    assert entry["kind"] == "shard"
    assert entry["usedBy"] == []

    young = json.loads(ocrft("cache", "prune", "--workspace", workspace, "--json").stdout)
    assert young == {"removed": [], "bytes": 0, "dryRun": False}
    asked = ("cache", "prune", "--workspace", workspace, "--older-than", "0s")
    assert json.loads(ocrft(*asked, "--dry-run", "--json").stdout)["removed"] == [entry["name"]]
    assert "1 entries" in ocrft(*asked).output
    assert json.loads(ocrft("cache", "list", "--workspace", workspace, "--json").stdout) == []


def test_a_workspace_that_is_not_there_and_an_age_that_is_none(tmp_path, workspace):
    assert ocrft("cache", "list", "--workspace", tmp_path / "nowhere").exit_code != 0
    assert ocrft("cache", "prune", "--workspace", workspace, "--older-than", "old").exit_code != 0


def test_lines_are_cut_out_of_pages_and_what_cannot_be_converted_is_listed(tmp_path):
    good_data.pages(tmp_path / "data", count=4)
    (tmp_path / "data/pages/2.png").write_bytes(b"not a picture")
    done = ocrft("convert", tmp_path / "data", tmp_path / "out", "--to", "csv", "--crops", "--json")
    assert done.exit_code == 65
    told = json.loads(done.stdout)
    assert (told["format"], told["written"], told["exitCode"]) == ("ppocr", 3, 65)
    assert [problem["place"] for problem in told["problems"]] == ["label.txt:3"]
    assert len(list((tmp_path / "out").rglob("*.png"))) == 3
    shown = ocrft("convert", tmp_path / "data", tmp_path / "again", "--to", "coco")
    assert "read as ppocr" in shown.output
    assert "3 samples written" in shown.output
