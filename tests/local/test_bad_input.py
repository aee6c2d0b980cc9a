"""What people get wrong is said with its place, all at once, with the right exit code; nothing is left over."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from local_run import Run
from PIL import Image


def break_csv(folder: Path, change: Callable[[list[list[str]]], None]) -> None:
    with (folder / "samples.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    change(rows)
    with (folder / "samples.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)


@pytest.fixture
def some(tmp_path, few) -> Path:
    """A few digits to break."""
    return Path(shutil.copytree(few, tmp_path / "data"))


@pytest.fixture
def prepare(some, tmp_path, make_run, ocrft) -> Callable[..., tuple[Run, subprocess.CompletedProcess[str]]]:
    def run(**changes) -> tuple[Run, subprocess.CompletedProcess[str]]:
        made = make_run(tmp_path / "run", **changes)
        made.change(
            {"dataset.train": [{"name": "digits", "uri": str(some), "format": "char-folders"}]}
            | {key.replace("__", "."): value for key, value in changes.items()}
        )
        done = ocrft("prepare", made.manifest, "--workspace", made.root)
        assert "Traceback" not in done.stdout + done.stderr
        return made, done

    return run


def test_what_is_wrong_with_pictures_is_listed_with_its_line(some, prepare):
    rows = (some / "samples.csv").read_text().splitlines()
    first, second, third = (some / rows[number].split(",")[0] for number in (1, 2, 3))
    first.unlink()
    second.write_bytes(b"not a picture")
    third.write_bytes(b"")
    run, done = prepare()
    assert done.returncode == 65, done.stderr
    for line in (2, 3, 4):
        assert f"samples.csv:{line}" in done.stderr
    rejected = [json.loads(line) for line in run.workspace.rejected.read_text().splitlines()]
    assert len(rejected) == 3
    run.change({"dataset.maxRejected": "5%"})


def test_a_few_bad_pictures_are_allowed_when_the_manifest_says_so(some, prepare):
    rows = (some / "samples.csv").read_text().splitlines()
    (some / rows[1].split(",")[0]).unlink()
    run, done = prepare(dataset__maxRejected="5%")
    assert done.returncode == 0, done.stderr
    assert len(run.workspace.rejected.read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("spoil", "code", "expected"),
    [
        (lambda f: break_csv(f, lambda rows: rows.__setitem__(0, ["a", "b", "c"])), 65, ["samples.csv:1"]),
        (lambda f: (f / "id2char.json").write_text("{"), 65, ["id2char.json"]),
        (lambda f: (f / "id2char.json").write_text('{"5300": "0"}'), 65, ["id2char.json", "5301"]),
        (lambda f: break_csv(f, lambda rows: rows.__delitem__(slice(1, None))), 65, ["holds no labelled picture"]),
        (shutil.rmtree, 66, ["data"]),
    ],
    ids=["header", "broken json", "ids missing", "empty", "no folder"],
)
def test_a_broken_collection_is_explained(some, prepare, spoil, code, expected):
    spoil(some)
    _, done = prepare()
    assert done.returncode == code, done.stderr
    for part in expected:
        assert part in done.stderr


def test_labels_outside_a_kept_dictionary_are_counted_and_named(some, prepare, tmp_path):
    (tmp_path / "dictionary.txt").write_text("0\n1\n2\n3\n4\n5\n6\n7\n")
    _, done = prepare(model__dictionary={"mode": "keep", "uri": str(tmp_path / "dictionary.txt")})
    assert done.returncode == 65, done.stderr
    assert "'8'" in done.stderr
    assert "'9'" in done.stderr


def test_a_failed_prepare_leaves_nothing_that_is_trusted_later(some, prepare, ocrft):
    rows = (some / "samples.csv").read_text().splitlines()
    broken = some / rows[1].split(",")[0]
    good = broken.read_bytes()
    broken.write_bytes(b"not a picture")
    run, done = prepare(dataset__maxRejected="0%")
    assert done.returncode == 65
    broken.write_bytes(good)
    assert ocrft("prepare", run.manifest, "--workspace", run.root).returncode == 0


def test_changed_data_is_prepared_again(some, prepare, ocrft):
    run, done = prepare()
    assert done.returncode == 0, done.stderr
    before = run.result("prepare")
    break_csv(some, lambda rows: rows.__delitem__(slice(1, 11)))
    assert ocrft("prepare", run.manifest, "--workspace", run.root).returncode == 0
    assert run.result("prepare").details["contentHash"] != before.details["contentHash"]


def test_a_workspace_that_cannot_be_written_is_named(make_run, ocrft, tmp_path):
    run = make_run(tmp_path)
    run.root.write_text("a file stands here")
    done = ocrft("run", run.manifest, "--workspace", run.root)
    assert done.returncode == 73
    assert str(run.root) in done.stderr


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of 3 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "none", folder], check=False, capture_output=True)
    if mount.returncode:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_full_disk_is_named_and_nothing_half_written_is_trusted(small_disk, make_run, ocrft, tmp_path):
    run = make_run(tmp_path)
    full = Run(run.manifest, small_disk / "workspace")
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * 2_500_000)
    done = ocrft("prepare", full.manifest, "--workspace", full.root)
    assert done.returncode == 74, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    filler.unlink()
    assert ocrft("prepare", full.manifest, "--workspace", full.root).returncode == 0


def test_a_device_that_is_not_there_is_named(prepare, ocrft):
    run, done = prepare(distributed__device="gpu")
    assert done.returncode == 0, done.stderr
    done = ocrft("train", run.manifest, "--workspace", run.root)
    assert done.returncode == 81, done.stderr
    assert "Traceback" not in done.stderr
    assert "device: cpu" in done.stderr


def test_a_claim_without_a_folder_is_named(make_run, ocrft, tmp_path):
    run = make_run(tmp_path, dataset__train=[{"name": "a", "uri": "pvc://plates/train"}])
    done = ocrft("run", run.manifest, "--workspace", run.root)
    assert done.returncode == 78
    assert "--claim plates=FOLDER" in done.stderr


def test_claims_are_folders_of_this_machine(prepare, some, ocrft):
    run, _ = prepare()
    run.change({"dataset.train": [{"name": "digits", "uri": "pvc://archive/data", "format": "char-folders"}]})
    done = ocrft("prepare", run.manifest, "--workspace", run.root, "--claim", f"archive={some.parent}")
    assert done.returncode == 0, done.stderr


def test_a_stage_whose_input_is_missing_says_which_to_run(make_run, ocrft, tmp_path):
    run = make_run(tmp_path)
    done = ocrft("train", run.manifest, "--workspace", run.root)
    assert done.returncode == 66
    assert "ocrft prepare" in done.stderr


def test_errors_are_json_where_json_is_asked_for(make_run, ocrft, tmp_path):
    run = make_run(tmp_path, model__name="PP-OCRv5_mobil_rec")
    done = ocrft("run", run.manifest, "--json")
    assert done.returncode == 78
    error = json.loads(done.stdout)["error"]
    assert error["exitCode"] == 78
    assert "did you mean PP-OCRv5_mobile_rec?" in error["problems"][0]


def test_a_picture_in_another_mode_is_read(some, prepare):
    rows = (some / "samples.csv").read_text().splitlines()
    for number, mode in enumerate(("1", "L", "P", "RGBA", "CMYK", "I;16"), start=1):
        path = some / rows[number].split(",")[0]
        with Image.open(path) as picture:
            changed = Image.new("I;16", picture.size) if mode == "I;16" else picture.convert(mode)
        changed.save(path, format="TIFF" if mode == "CMYK" else "PNG")
    _, done = prepare(dataset__maxRejected="0%")
    assert done.returncode == 0, done.stderr
