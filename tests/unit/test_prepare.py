"""Prepare leaves what later stages read, keeps its promises about splits and caches, and goes on after a kill."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest

import good_data
from holding import hold
from ocr_finetune_api import results
from ocr_finetune_api.exit_codes import DataError, ExitCode, OCRFineTuneError
from ocr_finetune_api.plan import Stage, plan
from ocr_finetune_api.run_config import RunConfig, RunIdentity
from ocr_finetune_api.spec import OCRFineTuneSpec
from ocr_finetune_api.workspace import Workspace
from ocr_finetune_trainer.data.cache import entries, prune
from ocr_finetune_trainer.data.fingerprint import fingerprint
from ocr_finetune_trainer.data.pictures import decode
from ocr_finetune_trainer.data.store import DataSet
from ocr_finetune_trainer.dictionary import Dictionary
from ocr_finetune_trainer.stages import prepare
from ocr_finetune_trainer.stages.context import StageContext, StageOutcome
from ocr_finetune_trainer.telemetry.reporter import Reporter

LINES, PAGES = "MobileNetV3_small_ctc", "DB_mv3"


def config_of(source, *, model=LINES, run="run", **dataset) -> RunConfig:
    train = source if isinstance(source, list) else [{"uri": str(source)}]
    values = {"train": train, "validation": {"fraction": 0.2}, **dataset}
    spec = {"model": {"name": model, "pretrained": "none"}, "dataset": values}
    extra = {key: values.pop(key) for key in ("evaluation",) if key in values}
    return RunConfig(
        run=RunIdentity(name=run, uid="0" * 8), spec=OCRFineTuneSpec.model_validate({**spec, **extra}), metrics_port=0
    )


def with_dictionary(config, dictionary) -> RunConfig:
    document = config.spec.model_dump(by_alias=True)
    document["model"]["dictionary"] = dictionary
    return config.model_copy(update={"spec": OCRFineTuneSpec.model_validate(document)})


def run(tmp_path, config) -> tuple[Workspace, StageOutcome]:
    workspace = Workspace(tmp_path / "workspace", f"{config.run.name}-{config.run.uid}")
    context = StageContext(
        config=config,
        workspace=workspace,
        planned=plan(config.spec)[Stage.PREPARE],
        reporter=Reporter.for_stage(Stage.PREPARE, folder=tmp_path / "telemetry"),
    )
    return workspace, prepare.run(context)


def sets(workspace) -> dict[str, DataSet]:
    return {path.parent.name: DataSet.open(path.parent) for path in workspace.data.glob("*/dataset.json")}


def test_what_later_stages_find(tmp_path):
    good_data.char_folders(tmp_path / "data", each=20)
    workspace, outcome = run(tmp_path, config_of(tmp_path / "data", test={"fraction": 0.2}))
    found = sets(workspace)
    assert {name: len(data) for name, data in found.items()} == outcome.details["counts"]
    assert sum(map(len, found.values())) == 60
    assert outcome.details["kind"] == "recognition"
    assert outcome.details["optimistic"] is False
    assert outcome.details["dictionary"] == {
        "size": 3, "space": False, "mode": "replace", "kept": 0, "new": 3, "dropped": 0,
    }  # fmt: skip
    assert outcome.details["maxTextLength"] == 25
    assert {name: data.content_hash for name, data in found.items()} == outcome.details["contentHash"]
    assert Dictionary.load(workspace.dictionary).characters == ("a", "b", "c")
    for data in found.values():
        for index in range(len(data)):
            sample = data[index]
            original = tmp_path / "data" / sample.origin.split("(")[1].rstrip(")")
            assert sample.image == original.read_bytes()
            assert decode(sample.image).shape[:2] == (sample.height, sample.width)
            assert original.name.split("_")[0] == sample.text
    assert set(outcome.artifacts) == {"rejected", "report", "reportData", "dictionary"}
    for path in outcome.artifacts.values():
        assert (workspace.folder / path).exists()


def test_a_data_set_is_hardly_larger_than_its_pictures_also_when_they_are_tiny(tmp_path):
    rows, pictures = [], 0
    (tmp_path / "data/images").mkdir(parents=True)
    for number in range(1000):
        small = cv2.resize(good_data.picture(number, text=f"w{number}"), (64, 20), interpolation=cv2.INTER_AREA)
        content = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 60])[1].tobytes()
        pictures += len(content)
        (tmp_path / f"data/images/word_{number:06}.jpg").write_bytes(content)
        rows.append(f"images/word_{number:06}.jpg\tw{number}\n")
    (tmp_path / "data/train.txt").write_text("".join(rows))
    workspace, _ = run(tmp_path, config_of(tmp_path / "data"))
    assert pictures < 1000 * 1000
    stored = sum(path.stat().st_size for path in (workspace.cache / "shards").iterdir())
    views = sum(path.stat().st_size for path in workspace.data.glob("*/*.arrow"))
    assert stored + views < 1.2 * pictures


def test_the_bar_moves_as_pictures_are_examined(tmp_path, monkeypatch):
    good_data.lines(tmp_path / "one", count=200)
    good_data.lines(tmp_path / "two", count=200)
    told: list[tuple[float, str]] = []
    original = Reporter.update

    def update(self: Reporter, **fields: object) -> None:
        original(self, **fields)
        told.append((self.progress.percent, self.progress.message))

    monkeypatch.setattr(Reporter, "update", update)
    run(tmp_path, config_of([{"name": name, "uri": str(tmp_path / name)} for name in ("one", "two")]))
    percents = [percent for percent, _ in told]
    assert percents == sorted(percents)
    assert len({percent for percent in percents if 0 < percent < prepare.READING}) >= 6
    assert (prepare.READING, "400 pictures examined") in told


def test_the_same_data_is_prepared_once_for_all_runs(tmp_path):
    good_data.lines(tmp_path / "data", count=20)
    first, one = run(tmp_path, config_of(tmp_path / "data", run="first"))
    files = {path: path.stat().st_mtime_ns for path in (first.cache / "shards").iterdir()}
    _, two = run(tmp_path, config_of(tmp_path / "data", run="second", validation={"fraction": 0.3}))
    assert {path: path.stat().st_mtime_ns for path in (first.cache / "shards").iterdir()} == files
    assert one.details["contentHash"] != two.details["contentHash"]
    assert {entry.used_by for entry in entries(first.root)} == {("first-00000000", "second-00000000")}


def test_what_no_run_uses_can_be_pruned(tmp_path):
    good_data.lines(tmp_path / "data", count=20)
    workspace, _ = run(tmp_path, config_of(tmp_path / "data"))
    good_data.save(tmp_path / "data/images/0.png", good_data.picture(999))
    run(tmp_path, config_of(tmp_path / "data"))
    unused = [entry for entry in entries(workspace.root) if not entry.used_by]
    assert len(unused) == 1
    assert prune(workspace.root, older_than=3600) == []
    assert prune(workspace.root, older_than=-1, dry_run=True) == unused
    assert prune(workspace.root, older_than=-1) == unused
    assert len(entries(workspace.root)) == 1
    assert len(sets(workspace)["train"][0].image) > 0


def test_pages_keep_their_boxes(tmp_path):
    good_data.pages(tmp_path / "data", count=12)
    workspace, outcome = run(tmp_path, config_of(tmp_path / "data", model=PAGES))
    sample = sets(workspace)["train"][0]
    assert outcome.details["kind"] == "detection"
    assert [polygon.tolist() for polygon in sample.polygons] == [[[10, 10], [60, 10], [60, 40], [10, 40]]]
    assert (sample.ignored, len(sample.texts), sample.text) == ((False,), 1, "")


def test_lines_are_cut_from_pages_and_stay_with_their_page(tmp_path):
    folder = tmp_path / "data"
    rows = []
    for number in range(12):
        page = good_data.picture(number, height=120, width=300)
        good_data.save(folder / f"{number}.png", page)
        boxes = [
            {"transcription": f"t{part}", "points": [[x, 20], [x + 80, 20], [x + 80, 50], [x, 50]]}
            for part, x in enumerate((5, 100, 200))
        ]
        boxes.append({"transcription": "up", "points": [[10, 60], [25, 60], [25, 110], [10, 110]]})
        boxes.append({"transcription": "###", "points": [[60, 60], [90, 60], [90, 90], [60, 90]]})
        rows.append(f"{number}.png\t{json.dumps(boxes)}")
    (folder / "label.txt").write_text("\n".join(rows), encoding="utf-8")
    workspace, outcome = run(tmp_path, config_of(folder, test={"fraction": 0.3}))
    assert sum(outcome.details["counts"].values()) == 48
    side_of_page: dict[str, set[str]] = {}
    for name, data in sets(workspace).items():
        for index in range(len(data)):
            sample = data[index]
            side_of_page.setdefault(sample.group, set()).add(name)
            assert (sample.width, sample.height) == ((50, 15) if sample.text == "up" else (80, 30))
    assert len(side_of_page) == 12
    assert all(len(sides) == 1 for sides in side_of_page.values())


def test_copies_of_a_picture_stay_on_one_side(tmp_path):
    good_data.lines(tmp_path / "data", count=60)
    rows = (tmp_path / "data/train.txt").read_text().splitlines()
    for number in range(60):
        image = good_data.picture(number, text=good_data.WORDS[number % 12])
        (tmp_path / f"data/images/copy{number}.jpg").write_bytes(good_data.jpeg(image))
        rows.append(f"images/copy{number}.jpg\t{good_data.WORDS[number % 12]}")
    (tmp_path / "data/train.txt").write_text("\n".join(rows))
    workspace, _ = run(tmp_path, config_of(tmp_path / "data", test={"fraction": 0.3}))
    sides: dict[str, set[str]] = {}
    for name, data in sets(workspace).items():
        for index in range(len(data)):
            stem = Path(data.origin(index).split("(")[1].rstrip(")")).stem
            sides.setdefault(stem.removeprefix("copy"), set()).add(name)
    assert len(sides) == 60
    assert sum(len(names) > 1 for names in sides.values()) == 0
    report = json.loads((workspace.data / "report.json").read_text())
    assert report["duplicates"]["alike"] == 60


def test_a_given_split_stands_and_its_leaks_are_told(tmp_path):
    good_data.lines(tmp_path / "data", count=12, name="train_list.txt")
    lines = (tmp_path / "data/train_list.txt").read_text().splitlines()
    (tmp_path / "data/test_list.txt").write_text("\n".join(lines[:3]))
    workspace, outcome = run(tmp_path, config_of(tmp_path / "data"))
    assert outcome.details["counts"]["test"] == 3
    assert outcome.details["optimistic"] is False
    report = json.loads((workspace.data / "report.json").read_text())
    assert report["splitGiven"] is True
    assert report["duplicates"]["acrossSplits"] == 3
    assert any("lie in different splits" in advice["text"] for advice in report["advice"])


def test_groups_by_a_regular_expression(tmp_path):
    for writer in "abcdefgh":
        for number in range(4):
            good_data.save(tmp_path / "data" / f"{writer}-{number}.png", good_data.picture(ord(writer) * 10 + number))
    names = sorted(path.name for path in (tmp_path / "data").glob("*.png"))
    (tmp_path / "data/list.txt").write_text("".join(f"{name}\tx\n" for name in names))
    workspace, _ = run(tmp_path, config_of(tmp_path / "data", test={"fraction": 0.3}, groupBy=r"([a-z])-\d"))
    sides: dict[str, set[str]] = {}
    for name, data in sets(workspace).items():
        for index in range(len(data)):
            sides.setdefault(data.origin(index).split("(")[1][0], set()).add(name)
    assert [len(names) for names in sides.values()] == [1] * 8


def test_sources_of_different_layouts_are_one_set(tmp_path):
    good_data.lines(tmp_path / "lines", count=20)
    good_data.table(tmp_path / "table", count=20)
    good_data.database(tmp_path / "lmdb", count=20)
    train = [
        {"name": name, "uri": str(tmp_path / name), "weight": 1 + number}
        for number, name in enumerate(("lines", "table", "lmdb"))
    ]
    good_data.lines(tmp_path / "validation", count=3)
    config = config_of(train, validation={"uri": str(tmp_path / "validation")})
    workspace, outcome = run(tmp_path, config)
    train_set = sets(workspace)["train"]
    assert train_set.source_names[:3] == ("lines", "table", "lmdb")
    assert np.bincount(train_set.sources).tolist() == [20, 20, 20]
    assert outcome.details["sources"]["validation"] == {"validation": 3}


def test_a_guard_and_end_to_end_pages_are_sets_of_their_own(tmp_path):
    for name in ("data", "guard"):
        good_data.lines(tmp_path / name)
    good_data.pages(tmp_path / "pages")
    config = config_of(
        tmp_path / "data",
        evaluation={
            "guard": [{"name": "general", "uri": str(tmp_path / "guard")}],
            "endToEnd": {"with": {"run": "det"}, "dataset": {"uri": str(tmp_path / "pages")}},
        },
    )
    workspace, outcome = run(tmp_path, config)
    assert outcome.details["counts"]["guard-general"] == 12
    assert len(sets(workspace)["end-to-end"][0].polygons) == 1


def test_what_cannot_be_used_in_a_test_set_is_counted(tmp_path):
    good_data.lines(tmp_path / "data")
    good_data.lines(tmp_path / "test", count=4)
    (tmp_path / "test/images/0.png").unlink()
    config = config_of(tmp_path / "data", test={"uri": str(tmp_path / "test")}, maxRejected="50%")
    _, outcome = run(tmp_path, config)
    assert outcome.details["counts"]["test"] == 3
    assert outcome.details["unusable"] == {"test": 1}


def test_too_many_rejected_samples_end_the_run_and_all_are_listed(tmp_path):
    good_data.lines(tmp_path / "data", count=60)
    for number in range(30):
        (tmp_path / f"data/images/{number}.png").unlink()
    with pytest.raises(DataError, match="30 of 60 samples") as caught:
        run(tmp_path, config_of(tmp_path / "data"))
    assert "… and 10 more" in caught.value.problems[-1]
    workspace = Workspace(tmp_path / "workspace", "run-00000000")
    assert len(workspace.rejected.read_text().splitlines()) == 30
    assert not sets(workspace)
    _, outcome = run(tmp_path, config_of(tmp_path / "data", maxRejected="50%"))
    assert outcome.metrics["rejected"] == 30


def test_missing_weights_and_bad_data_are_told_together(tmp_path, monkeypatch):
    monkeypatch.setenv("OCRFT_MODEL_HOME", str(tmp_path / "models"))
    good_data.lines(tmp_path / "data")
    (tmp_path / "data/images/0.png").write_bytes(b"")
    config = config_of(tmp_path / "data")
    model = config.spec.model.model_copy(update={"pretrained": str(tmp_path / "nowhere.pdparams")})
    config = config.model_copy(update={"spec": config.spec.model_copy(update={"model": model})})
    with pytest.raises(OCRFineTuneError) as caught:
        run(tmp_path, config)
    assert any("nowhere.pdparams" in problem for problem in caught.value.problems)
    assert any("train.txt:1" in problem for problem in caught.value.problems)


@pytest.mark.parametrize("space", ["auto", "no"])
def test_an_official_dictionary_is_taken_by_its_name(tmp_path, monkeypatch, space):
    characters = sorted(set("".join(good_data.WORDS) + "é字"))
    (tmp_path / "home/PP-OCRv4_mobile_rec").mkdir(parents=True)
    known = json.dumps({"PostProcess": {"character_dict": characters}})
    (tmp_path / "home/PP-OCRv4_mobile_rec/inference.yml").write_text(known)
    monkeypatch.setenv("OCRFT_MODEL_HOME", str(tmp_path / "home"))
    good_data.lines(tmp_path / "data", count=20)
    named = {"mode": "replace", "uri": "official://PP-OCRv4_mobile_rec", "space": space}
    workspace, _ = run(tmp_path, with_dictionary(config_of(tmp_path / "data"), named))
    assert Dictionary.load(workspace.dictionary) == Dictionary(tuple(characters), use_space=space == "auto")


def test_an_official_dictionary_that_nobody_publishes_is_named(tmp_path):
    good_data.lines(tmp_path / "data", count=20)
    config = with_dictionary(config_of(tmp_path / "data"), {"uri": "official://PP-OCRv4_mobil_rec"})
    with pytest.raises(OCRFineTuneError, match="PP-OCRv4_mobil_rec"):
        run(tmp_path, config)


@pytest.mark.parametrize("first", range(6))
def test_a_label_that_is_rejected_does_not_stand_for_a_whole_side(tmp_path, first):
    """Whatever picture the wrong label belongs to: a sample that can be used is held back."""
    folder = tmp_path / "data"
    folder.mkdir()
    for number in range(6):
        good_data.save(folder / f"{number}.png", good_data.picture(10 * first + number))
    (folder / "list.txt").write_text("".join(f"{n}.png\t{'a' * 300 if n == first else 'bc'}\n" for n in range(6)))
    config = config_of(folder, validation={"fraction": 0.01}, test={"fraction": 0.01}, maxRejected="50%")
    _, outcome = run(tmp_path, config)
    assert outcome.details["counts"] == {"train": 3, "validation": 1, "test": 1}


def test_what_changes_behind_a_link_is_seen(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data/linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/back").symlink_to(tmp_path / "data")  # round and round
    (tmp_path / "data/nothing").symlink_to(tmp_path / "nowhere")
    spec = config_of(tmp_path / "data").spec
    before = fingerprint(spec)
    (tmp_path / "elsewhere/list.txt").write_text("a.png\ta\n")
    after = fingerprint(spec)
    assert after != before
    assert fingerprint(spec) == after


def many_lines(folder) -> None:
    """Ten shards of lines; each picture is that of many."""
    folder.mkdir()
    rows = []
    for number in range(600):
        good_data.save(folder / f"{number}.png", good_data.picture(number, height=16, width=24))
        rows += [f"{number}.png\tw{number}"] * 31
    (folder / "list.txt").write_text("\n".join(rows))


def test_a_process_that_is_killed_is_named_and_what_was_finished_is_kept(tmp_path):
    many_lines(tmp_path / "data")
    config = tmp_path / "run.yaml"
    config.write_text(config_of(tmp_path / "data").to_yaml())
    command = [sys.executable, "-m", "ocr_finetune_trainer.cli", "stage", "prepare", "--config", str(config),
               "--workspace", str(tmp_path / "workspace")]  # fmt: skip
    held = hold(tmp_path / "hold", "*.index.arrow", after=1)
    environment = {**os.environ, "OCRFT_PREPARE_WORKERS": "2", "OCRFT_METRICS_PORT": "0", **held.environment}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    shards = tmp_path / "workspace/.cache/shards"
    deadline = time.monotonic() + 300
    while len(list(shards.glob("*.index.arrow"))) < 2:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    workers = [child for child in psutil.Process(process.pid).children() if "spawn_main" in " ".join(child.cmdline())]
    assert len(workers) == 2
    workers[0].kill()
    held.let_go()
    _, said = process.communicate(timeout=300)
    assert process.returncode == ExitCode.STORAGE, said
    assert "a process that opens pictures was killed" in said
    assert "OCRFT_PREPARE_WORKERS=1" in said
    assert "Traceback" not in said
    assert len(list(shards.glob("*.index.arrow"))) >= 2


def test_a_copy_that_does_not_fit_is_no_fault_of_the_data(tmp_path):
    (tmp_path / "data").mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (300, 300, 3), dtype=np.uint8)
    for number in range(3):
        good_data.save(tmp_path / f"data/{number}.png", noise)
    (tmp_path / "data/list.txt").write_text("".join(f"{number}.png\ta\n" for number in range(3)))
    config = tmp_path / "run.yaml"
    config.write_text(config_of(f"local://{tmp_path / 'data'}").to_yaml())
    done = subprocess.run(
        [sys.executable, "-m", "ocr_finetune_trainer.cli", "stage", "prepare", "--config", str(config),
         "--workspace", str(tmp_path / "workspace")],
        env={**os.environ, "OCRFT_METRICS_PORT": "0"}, capture_output=True, text=True, timeout=300, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
    )  # fmt: skip
    assert done.returncode == ExitCode.STORAGE, done.stderr
    assert "can't be copied here: File too large" in done.stderr
    assert "Traceback" not in done.stderr


def test_it_goes_on_after_a_kill_and_trusts_nothing_half_written(tmp_path):
    """Ten shards by two processes; killed while they are made; the next run makes only what is missing."""
    folder = tmp_path / "data"
    many_lines(folder)
    config = tmp_path / "run.yaml"
    made = config_of(folder)
    config.write_text(made.to_yaml())
    command = [sys.executable, "-m", "ocr_finetune_trainer.cli", "stage", "prepare", "--config", str(config),
               "--workspace", str(tmp_path / "workspace")]  # fmt: skip
    environment = {**os.environ, "OCRFT_PREPARE_WORKERS": "2", "OCRFT_METRICS_PORT": "0"}
    shards = tmp_path / "workspace/.cache/shards"
    # Each of the two stands still before the last file of its second shard has its name.
    held = environment | hold(tmp_path / "hold", "*.index.arrow", after=1).environment
    process = subprocess.Popen(command, env=held, stdout=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 300
    while len(list(shards.glob("*.index.arrow"))) < 2:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = {path: path.stat().st_mtime_ns for path in shards.glob("*.index.arrow")}
    assert len(before) == 2
    (shards / "leftover.arrow").write_bytes(b"half")

    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    after = {path: path.stat().st_mtime_ns for path in shards.glob("*.index.arrow")}
    assert len(after) == 10
    assert all(after[path] == stamp for path, stamp in before.items())
    result = results.read(tmp_path / "workspace/run-00000000/results/prepare.json")
    assert sum(result.details["counts"].values()) == 600 * 31


def test_runs_that_prepare_the_same_data_at_once_do_not_disturb_each_other(tmp_path):
    """Two nodes, one shared file system: each shard is whole under its name at any time, whoever wrote it."""
    good_data.lines(tmp_path / "data", count=60)
    processes = []
    for name in ("first", "second", "third"):
        config = tmp_path / f"{name}.yaml"
        config.write_text(config_of(tmp_path / "data", run=name).to_yaml())
        command = [sys.executable, "-m", "ocr_finetune_trainer.cli", "stage", "prepare", "--config", str(config),
                   "--workspace", str(tmp_path / "workspace")]  # fmt: skip
        environment = {**os.environ, "OCRFT_PREPARE_WORKERS": "1", "OCRFT_METRICS_PORT": "0"}
        processes.append(subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE))
    for process in processes:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said.decode()
    made = [sets(Workspace(tmp_path / "workspace", f"{name}-00000000")) for name in ("first", "second", "third")]
    assert [data["train"].content_hash for data in made] == [made[0]["train"].content_hash] * 3
    assert len({data["train"].image(0) for data in made}) == 1
    shards = tmp_path / "workspace/.cache/shards"
    assert len(list(shards.glob("*.index.arrow"))) == 1
    assert not list(shards.glob(".*")), "nothing half written is left"
