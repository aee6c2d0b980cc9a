"""`ocrft check` says what is there on one screen, in JSON and in a page of its own, with the right exit code."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

import good_data
from ocr_finetune_api.model_table import Kind
from ocr_finetune_trainer.cli import app
from ocr_finetune_trainer.data.report import _notes


def manifest(tmp_path, *, model="MobileNetV3_small_ctc", **dataset) -> Path:
    path = tmp_path / "finetune.yaml"
    document = {
        "apiVersion": "ocrfinetune.dev/v1alpha1",
        "kind": "OCRFineTune",
        "metadata": {"name": "checked"},
        "spec": {
            "model": {"name": model, "pretrained": "none"},
            "dataset": {"train": [{"uri": "data"}], "test": {"fraction": 0.2}, **dataset},
        },
    }
    path.write_text(yaml.safe_dump(document))
    return path


def check(path, *options):
    return CliRunner().invoke(app, ["check", str(path), "--workspace", str(path.parent / "ws"), *options])


@pytest.fixture
def odd(tmp_path):
    """Sixty lines, some of them odd in a way of their own."""
    folder = good_data.lines(tmp_path / "data", count=60)
    rows = (folder / "train.txt").read_text().splitlines()
    good_data.save(folder / "images/0.png", good_data.picture(0) * 0 + 250)
    good_data.save(folder / "images/1.png", good_data.picture(1, height=6, width=30))
    rows[2] = "images/2.png\tthis label is far too long for the picture that it stands beside, is it not?"
    good_data.save(folder / "images/3.png", good_data.picture(3, height=200, width=40))
    (folder / "images/copy.jpg").write_bytes(good_data.jpeg(good_data.picture(20, text=good_data.WORDS[20 % 12])))
    rows.append("images/copy.jpg\tsomething else")
    rows[30] = rows[30].replace("\t", "\t  ")
    (folder / "train.txt").write_text("\n".join(rows))
    return tmp_path


def test_everything_odd_is_named_and_shown(odd):
    done = check(manifest(odd), "--json", "--show", "6")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert {name: group["count"] for name, group in report["suspects"].items()} == {
        "blank": 1, "tiny": 1, "mislabelled": 2, "upright": 1, "contradicting": 2, "duplicate": 2, "tooLong": 0,
    }  # fmt: skip
    assert report["suspects"]["blank"]["samples"][0]["place"] == "train.txt:1 (images/0.png)"
    assert report["changedLabels"] == {"counts": {"spaces": 1}, "examples": {"spaces": [["  golf", "golf"]]}}
    assert report["sources"][0]["format"] == "ppocr"
    assert sum(report["splits"].values()) == 61
    assert report["characters"]["dictionary"]["mode"] == "replace"
    assert any("5000" in advice["text"] for advice in report["advice"])
    assert {choice["name"] for choice in report["choices"]} >= {"learningRate", "epochs", "batchSize"}
    page = Path(report["files"]["report"]).read_text(encoding="utf-8")
    assert page.count("<svg") >= 4
    assert page.count("data:image/jpeg;base64,") > 20
    assert not re.search(r"(?:src|href)=(?![\"']?data:)", page), "it needs nothing else"
    assert not re.search(r"<script", page)
    sheet = cv2.imread(report["files"]["sheet"])
    assert sheet.shape[0] == 2 * (32 + 4)


def test_labels_are_text_in_the_page_and_never_markup(tmp_path):
    folder = good_data.lines(tmp_path / "data", count=20)
    rows = (folder / "train.txt").read_text().splitlines()
    rows[:20] = [f"images/{n}.png\t<script>alert({n})</script>" for n in range(20)]
    (folder / "train.txt").write_text("\n".join(rows))
    done = check(manifest(tmp_path), "--json")
    page = Path(json.loads(done.stdout)["files"]["report"]).read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_the_short_version_fits_a_screen(odd):
    done = check(manifest(odd))
    assert done.exit_code == 0
    assert len(done.output.splitlines()) < 50
    for part in ("ppocr", "splits: train", "warning:", "report.html", "learningRate"):
        assert part in done.output


def test_strict_makes_warnings_errors(odd):
    assert check(manifest(odd), "--strict").exit_code == 65


def test_errors_end_with_65_and_missing_sources_with_66(tmp_path):
    good_data.lines(tmp_path / "data")
    (tmp_path / "data/images/0.png").write_bytes(b"")
    done = check(manifest(tmp_path), "--json")
    report = json.loads(done.stdout)
    assert (done.exit_code, report["exitCode"]) == (65, 65)
    assert report["problems"][0]["place"] == "train.txt:1"
    assert len(report["errors"]) == 1
    (tmp_path / "data").rename(tmp_path / "gone")
    assert check(manifest(tmp_path)).exit_code == 66


def test_pages_are_reported_too(tmp_path):
    good_data.pages(tmp_path / "data", count=10)
    done = check(manifest(tmp_path, model="DB_mv3"), "--json", "--show", "3")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["sizes"]["boxesInAll"] == 10
    assert any("500" in advice["text"] for advice in report["advice"])
    assert report["guide"] == {
        "unit": "pages", "recommended": 500, "there": report["splits"]["train"], "dictionaryChanges": False,
    }  # fmt: skip
    assert cv2.imread(report["files"]["sheet"]) is not None


def test_a_check_prepares_for_the_run(tmp_path):
    good_data.lines(tmp_path / "data", count=20)
    path = manifest(tmp_path)
    check(path)
    shards = {shard: shard.stat().st_mtime_ns for shard in (tmp_path / "ws/.cache/shards").iterdir()}
    done = CliRunner().invoke(app, ["check", str(path), "--workspace", str(tmp_path / "ws")])
    assert done.exit_code == 0
    assert {shard: shard.stat().st_mtime_ns for shard in (tmp_path / "ws/.cache/shards").iterdir()} == shards
    listed = CliRunner().invoke(app, ["cache", "list", "--workspace", str(tmp_path / "ws"), "--json"])
    assert [entry["kind"] for entry in json.loads(listed.stdout)] == ["shard"]
    gone = CliRunner().invoke(app, ["cache", "prune", "--workspace", str(tmp_path / "ws"), "--older-than", "0s"])
    assert gone.exit_code == 0
    assert not list((tmp_path / "ws/.cache/shards").iterdir())


def test_pages_are_shown_with_their_outlines(tmp_path):
    """Each picture of the report has the outline of its box, in the colour that says whether it is learnt."""
    folder = tmp_path / "data"
    rows = []
    for number in range(8):
        good_data.save(folder / f"{number}.png", np.full((200, 200, 3), 255 - number, dtype=np.uint8))
        corners = [[20 + number, 40], [180, 40], [180, 90], [20 + number, 90]]
        label = [good_data.box(points=corners, difficult=number % 2 == 1)]
        rows.append(f"{number}.png\t{json.dumps(label)}\n")
    (folder / "label.txt").write_text("".join(rows))
    done = check(manifest(tmp_path, model="DB_mv3", groupBy="none"), "--json")
    page = Path(json.loads(done.stdout)["files"]["report"]).read_text(encoding="utf-8")
    shown = [
        cv2.imdecode(np.frombuffer(base64.b64decode(content), dtype=np.uint8), cv2.IMREAD_COLOR)
        for content in re.findall(r"data:image/jpeg;base64,([^\"]+)", page)
    ]
    assert shown
    for picture in shown:
        assert picture.shape[:2] == (260, 260)
        edge = picture[50:54, 100:160].reshape(-1, 3).astype(int)
        blue, green, red = edge[edge.sum(axis=1).argmin()]
        assert blue < 160
        assert green != pytest.approx(red, abs=40), "neither green nor orange"
        assert picture[100, 130].min() > 200, "the inside stays to be seen"


def test_labels_that_are_too_long_are_shown(tmp_path):
    folder = good_data.lines(tmp_path / "data", count=300)
    rows = (folder / "train.txt").read_text().splitlines()
    rows[7] = "images/7.png\t" + "x" * 300
    (folder / "train.txt").write_text("\n".join(rows))
    report = json.loads(check(manifest(tmp_path, groupBy="none"), "--json").stdout)
    assert report["suspects"]["tooLong"]["count"] == 1
    assert report["suspects"]["tooLong"]["samples"][0]["place"] == "train.txt:8 (images/7.png)"
    page = Path(report["files"]["report"]).read_text(encoding="utf-8")
    assert "Label too long to be read (1)" in page


def test_the_sheet_shows_what_training_would_see(tmp_path):
    """Lengthened lines where the recipe has them, and nothing changed where the manifest wants nothing changed."""
    good_data.lines(tmp_path / "data", count=24)
    path = manifest(tmp_path, model="PP-OCRv5_mobile_rec", groupBy="none")
    sheets = []
    off = {f"{name}_prob": 0 for name in ("tia", "crop", "reverse", "noise", "jitter", "blur", "hsv_aug")}
    without = {"Train.dataset.transforms": {"RecAug": off, "RecConAug": {"prob": 0}}}
    for training in ({"augmentation": "auto"}, {"augmentation": "none"}, {"config": without}):
        document = yaml.safe_load(path.read_text())
        document["spec"]["training"] = training
        path.write_text(yaml.safe_dump(document))
        files = json.loads(check(path, "--json", "--show", "30").stdout)["files"]
        sheets.append(cv2.imread(files["sheet"]))
    wide, plain, switched_off = sheets
    assert np.array_equal(switched_off, plain)
    assert wide.shape[1] > 1.5 * plain.shape[1], "some lines have others behind them"
    columns = np.split(plain, 4, axis=1)
    assert all(np.array_equal(column, columns[0]) for column in columns)


@pytest.mark.parametrize(
    ("training", "expected"), [(60_000, "95 % and more"), (20_000, "85 to 95 %"), (900, "70 to 85 %")]
)
def test_single_characters_come_with_what_others_reach(tmp_path, training, expected):
    """The figures are those of a guide for single characters; nothing is promised for lines."""
    good_data.char_folders(tmp_path / "data", each=20)
    report = json.loads(check(manifest(tmp_path, groupBy="none"), "--json").stdout)
    assert any("others reach an accuracy of 70 to 85 %" in advice["text"] for advice in report["advice"])
    told = _notes({**report, "splits": {"train": training}}, Kind.RECOGNITION)
    assert any(expected in text for text in told)
    lines = {**report, "labels": {**report["labels"], "longest": 7}}
    assert not any("others reach" in text for text in _notes(lines, Kind.RECOGNITION))
