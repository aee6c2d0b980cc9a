"""Where a training starts from: official weights, one's own, another run's, and bad ones."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
import yaml
from local_run import Run, environment

from ocr_finetune_api.model_table import OFFICIAL_SITE, TABLE
from ocr_finetune_trainer import models
from weights_site import archive, serving

SMALL, OFFICIAL = "MobileNetV3_small_ctc", "PP-OCRv3_mobile_rec_ctc"
DIGITS = "0123456789"

Prepare = Callable[..., tuple[Run, subprocess.CompletedProcess[str]]]


@pytest.fixture
def some(tmp_path: Path, digits: Path) -> Path:
    """A few dozen digits, as a list of lines."""
    folder = tmp_path / "data"
    folder.mkdir()
    pictures = sorted(digits.rglob("*.png"))[::40]
    (folder / "list.txt").write_text("".join(f"{path}\t{path.name[0]}\n" for path in pictures), encoding="utf-8")
    return folder


@pytest.fixture
def prepare(some: Path, tmp_path: Path, make_run: Any, ocrft: Any) -> Prepare:
    def run(
        pretrained: str | Path, *, model: str = SMALL, env: dict[str, str] | None = None, **changes: Any
    ) -> tuple[Run, subprocess.CompletedProcess[str]]:
        made = make_run(tmp_path / "run", **changes)
        source = {"name": "digits", "uri": str(some), "format": "ppocr"}
        made.change({"dataset.train": [source], "model": {"name": model, "pretrained": str(pretrained)}})
        done = ocrft("prepare", made.manifest, "--workspace", made.root, env=environment() | (env or {}))
        assert "Traceback" not in done.stdout + done.stderr
        return made, done

    return run


def arrays(
    model: str = SMALL, *, prefix: str = "", characters: int = len(DIGITS), **build: Any
) -> dict[str, np.ndarray]:
    built = models.build(model, characters=characters, **build)
    return {prefix + name: tensor.numpy() for name, tensor in built.state_dict().items()}


def write(folder: Path, values: dict[str, np.ndarray], *, dictionary: str = DIGITS) -> Path:
    folder.mkdir(exist_ok=True)
    paddle.save({name: paddle.to_tensor(value) for name, value in values.items()}, str(folder / "w.pdparams"))
    (folder / "w.txt").write_text("".join(f"{c}\n" for c in dictionary), encoding="utf-8")
    return folder / "w.pdparams"


def test_official_weights_come_from_a_slow_mirror_that_breaks_off(prepare: Prepare, tmp_path: Path) -> None:
    info = TABLE[OFFICIAL]
    weights = write(tmp_path / "made", arrays(OFFICIAL, characters=11)).read_bytes()
    config = json.dumps({"PostProcess": {"character_dict": list(DIGITS)}}).encode()
    with serving() as site:
        site.files = {
            info.weights_url.removeprefix(OFFICIAL_SITE): weights,
            info.inference_url.removeprefix(OFFICIAL_SITE): archive({"x/inference.yml": config}),
        }
        site.breaks_after = len(weights) // 2 + 1
        home = {"OCRFT_MODEL_MIRROR": site.url, "OCRFT_MODEL_HOME": str(tmp_path / "home")}
        run, done = prepare("official", model=OFFICIAL, env=home)
        assert done.returncode == 0, done.stderr
        assert any(asked.startswith("bytes=") for _, asked in site.requests)
    details = run.result("prepare").details
    assert details["dictionary"]["kept"] == 11
    assert details["pretrained"]["initialised"] == {}
    assert len(details["pretrained"]["sha256"]) == 64
    file = next((tmp_path / "home").rglob("*.pdparams"))
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    _, done = prepare("official", model=OFFICIAL, env=home, training__seed=1, dataset__maxRejected="2%")
    assert done.returncode == 65
    assert "wrong checksum" in done.stderr


def test_a_distilled_student_is_found(prepare: Prepare, tmp_path: Path) -> None:
    values = {**arrays(prefix="Teacher."), **arrays(prefix="Student."), **arrays(prefix="Student2.")}
    run, done = prepare(write(tmp_path / "own", values))
    assert done.returncode == 0, done.stderr
    report = run.result("prepare").details["pretrained"]
    assert report["prefix"] == "Student."
    assert len(report["loaded"]) == len(arrays())
    assert len(report["ignored"]) == 2 * len(arrays())
    assert f"{len(arrays())} tensors loaded from" in done.stderr
    assert "names without 'Student.'" in done.stderr
    assert f"{2 * len(arrays())} of the file not used: Student2.backbone" in done.stderr


def _truncated(folder: Path, _: Path) -> Path:
    path = write(folder, arrays())
    path.write_bytes(path.read_bytes()[:5000])
    return path


def _of_another_model(folder: Path, _: Path) -> Path:
    return write(folder, arrays("CRNN_r34_vd"))


def _of_another_dictionary(folder: Path, _: Path) -> Path:
    return write(folder, arrays(characters=30))


def _unreachable(_: Path, __: Path) -> str:
    return "http://127.0.0.1:9/w.pdparams"


def _missing(folder: Path, _: Path) -> Path:
    return folder / "nowhere.pdparams"


def _code(folder: Path, target: Path) -> Path:
    class Touch:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, (f"touch {target}",)

    folder.mkdir()
    (folder / "w.pdparams").write_bytes(pickle.dumps({"w": Touch()}))
    return folder / "w.pdparams"


@pytest.mark.parametrize(
    ("make", "code", "says"),
    [
        (_truncated, 65, ["cut off"]),
        (_of_another_model, 65, ["tensors are in this file", "(1)", "(2)", "(3)"]),
        (_of_another_dictionary, 65, ["the head has 31 classes", "w.txt"]),
        (_unreachable, 66, ["can't be reached", "127.0.0.1:9"]),
        (_missing, 66, ["nowhere.pdparams", "there is no such file"]),
        (_code, 65, ["asks for posix.system", "nothing of it was loaded or run"]),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_bad_weights_end_the_run_before_any_training(
    prepare: Prepare, tmp_path: Path, make: Any, code: int, says: list[str]
) -> None:
    target = tmp_path / "it_ran"
    run, done = prepare(make(tmp_path / "own", target))
    assert done.returncode == code, done.stderr
    for part in says:
        assert part in done.stderr
    assert not target.exists()
    assert not list(run.workspace.data.glob("*/dataset.json"))


def test_bad_weights_a_bad_dictionary_and_bad_data_are_told_together(
    prepare: Prepare, some: Path, tmp_path: Path
) -> None:
    with (some / "list.txt").open("a", encoding="utf-8") as file:
        file.write("gone.png\t1\n")
    _, done = prepare(_of_another_model(tmp_path / "own", tmp_path))
    assert done.returncode == 65
    assert "tensors are in this file" in done.stderr
    assert "gone.png" in done.stderr


def test_a_run_goes_on_from_another_runs_best_checkpoint(finished: Any, tmp_path: Path, ocrft: Any) -> None:
    first, _ = finished
    document = yaml.safe_load(first.manifest.read_text(encoding="utf-8"))
    document["metadata"]["name"] = "second"
    document["spec"]["model"] |= {"pretrained": f"run://{first.workspace.run.rpartition('-')[0]}", "freeze": "body"}
    document["spec"]["model"]["dictionary"] = {"mode": "extend", "uri": str(tmp_path / "more.txt")}
    document["spec"]["training"] |= {"epochs": 1, "ema": 0}
    (tmp_path / "more.txt").write_text("x\n5\ny\n", encoding="utf-8")
    second = Run(tmp_path / "second.yaml", first.root)
    second.manifest.write_text(yaml.safe_dump(document), encoding="utf-8")
    printed = {}
    for stage in ("prepare", "train"):
        done = ocrft(stage, second.manifest, "--workspace", second.root)
        assert done.returncode == 0, done.stdout + done.stderr
        printed[stage] = done.stderr
    assert second.result("prepare").details["dictionary"]["new"] == 2
    assert "2 carried over to the new dictionary: head.fc.weight, head.fc.bias" in printed["prepare"]
    assert "10 characters of the weights kept; 2 new: 'x', 'y'; 0 dropped" in printed["prepare"]
    result = second.result("train")
    loaded = result.details["pretrained"]
    assert set(loaded["resized"]) == {"head.fc.weight", "head.fc.bias"}
    assert (loaded["initialised"], loaded["ignored"]) == ({}, [])
    before = first.result("train").metrics["best"]["value"]
    # the first evaluation is before the first step: the characters of both dictionaries are read as before
    assert result.metrics["base"]["value"] == pytest.approx(before, abs=0.01)
