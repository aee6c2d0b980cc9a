"""`ocrft predict` on every form that a model has."""

from __future__ import annotations

import json
import shutil

import cv2
import numpy as np
import pytest
from trained_detector import detection_spec, make_detection_run, pages
from trained_run import context_for, digits, make_run, spec_of
from typer.testing import CliRunner

from ocr_finetune_api.exit_codes import ConfigurationError, DataError, InputMissingError
from ocr_finetune_api.plan import Stage
from ocr_finetune_trainer.cli import app
from ocr_finetune_trainer.evaluation.opening import open_model
from ocr_finetune_trainer.evaluation.subjects import trained_of
from ocr_finetune_trainer.export.exporter import Exporter
from ocr_finetune_trainer.export.quantize import quantize_int8, to_fp16

pytestmark = pytest.mark.filterwarnings("ignore:When training, we now always track:UserWarning")


def make_formats(context, calibration):
    """The formats alone, without the checks that other tests look at."""
    context.workspace.run_config.write_text(context.config.to_yaml())
    exporter = Exporter(
        subject=trained_of(context.workspace, context.spec),
        folder=context.workspace.export,
        checker=None,
        metrics={},
        max_drop=0.0,
        tell=print,
    )
    exporter.make_paddle()
    exporter.make_onnx()
    to_fp16(exporter.onnx, exporter.folder / "fp16" / "inference.onnx")
    quantize_int8(
        exporter.onnx,
        exporter.folder / "int8" / "inference.onnx",
        calibration=calibration(exporter.subject.geometry),
        drop_of=lambda _: 0.0,
        max_drop=1.0,
    )
    return context.workspace


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    root = tmp_path_factory.mktemp("reader")
    make_run(root)
    return make_formats(
        context_for(root, Stage.EXPORT, spec=spec_of()),
        lambda geometry: [geometry.batch([image]) for image, _ in digits(20)],
    )


@pytest.fixture(scope="module")
def finder(tmp_path_factory):
    root = tmp_path_factory.mktemp("finder")
    make_detection_run(root)
    return make_formats(
        context_for(root, Stage.EXPORT, spec=detection_spec(), name="bars"),
        lambda geometry: [geometry.normalization(geometry.resize(image).picture)[None] for image, _, _ in pages(6)],
    )


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, (image, _) in enumerate(digits(6, start=1000)):
        cv2.imwrite(str(folder / f"{number}.png"), image)
    return folder


def predict(*arguments, **options):
    return CliRunner().invoke(app, ["predict", "--json", *map(str, arguments)], **options)


def documents(result):
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_a_model_reads_the_same_in_every_form(reader, pictures):
    checkpoint = next(reader.checkpoints.iterdir())
    forms = [
        reader.folder,
        checkpoint,
        reader.export,
        reader.export / "paddle",
        reader.export / "onnx" / "inference.onnx",
    ]
    answers = []
    for form in forms:
        result = predict(form, pictures)
        assert result.exit_code == 0, result.output
        answers.append([document["texts"][0]["text"] for document in documents(result)])

    assert len(answers[0]) == 6
    assert all(answer == answers[0] for answer in answers)
    for small in ("fp16", "int8"):
        texts = [document["texts"][0]["text"] for document in documents(predict(reader.export / small, pictures))]
        assert sum(a == b for a, b in zip(texts, answers[0], strict=True)) >= 5


def test_names_come_from_a_list_and_keep_their_order(reader, pictures):
    names = [str(pictures / f"{number}.png") for number in (3, 0, 5)]

    result = predict(reader.export, "-", input="\n".join(names) + "\n\n")

    assert [document["picture"] for document in documents(result)] == names


def test_bad_pictures_are_named_and_the_others_read(reader, pictures):
    (pictures / "1a.png").write_bytes(b"no picture")
    (pictures / "1b.png").write_bytes(b"")

    result = predict(reader.export, pictures)

    problems = {document["picture"]: document["problem"] for document in documents(result) if "problem" in document}
    assert result.exit_code == 65
    assert len(documents(result)) == 8
    assert set(problems) == {str(pictures / "1a.png"), str(pictures / "1b.png")}
    assert predict(reader.export, pictures / "missing.png").exit_code == 66


def test_the_words_for_people_hold_name_text_and_score(reader, pictures):
    result = CliRunner().invoke(app, ["predict", str(reader.export), str(pictures / "0.png")])

    name, text, score = result.stdout.rstrip("\n").split("\t")
    assert (name, len(text) <= 1, 0 <= float(score) <= 1) == (str(pictures / "0.png"), True, True)


@pytest.fixture
def page_files(tmp_path):
    files = []
    for number, (image, _, _) in enumerate(pages(2, seed=9)):
        files.append(tmp_path / f"page{number}.png")
        cv2.imwrite(str(files[-1]), image)
    return files


def test_a_detector_finds_the_texts_in_reading_order(finder, page_files, tmp_path):
    found = {}
    for form in (finder.folder, *(finder.export / name for name in ("paddle", "onnx", "fp16", "int8"))):
        result = predict(form, *page_files, "--draw", tmp_path / "drawn")
        assert result.exit_code == 0, result.output
        found[form.name] = [[text["points"] for text in document["texts"]] for document in documents(result)]

    assert found["paddle"] == found["onnx"] == found[finder.folder.name]
    tops = [points[0][1] for points in found["paddle"][0]]
    assert len(tops) == 3
    assert tops == sorted(tops)
    for small in ("fp16", "int8"):
        assert np.abs(np.subtract(found[small], found["onnx"])).max() <= 4
    drawn = sorted((tmp_path / "drawn").iterdir())
    assert len(drawn) == 10
    for x, y in found["paddle"][0][0]:
        _, green, red = cv2.imread(str(drawn[0]))[min(y, 159), min(x, 159)].astype(int)
        assert green > red + 40


def test_both_models_read_pages(finder, reader, page_files):
    result = predict(finder.export, *page_files, "--with", reader.export)

    texts = documents(result)[0]["texts"]
    assert result.exit_code == 0, result.output
    assert [set(text) for text in texts] == [{"text", "score", "points", "foundScore"}] * 3
    assert documents(predict(reader.export, *page_files, "--with", finder.export)) == documents(result)


def test_two_models_of_a_kind_do_not_go_together(reader, pictures):
    result = predict(reader.export, pictures, "--with", reader.export)

    assert isinstance(result.exception, ConfigurationError)
    assert isinstance(predict(reader.export, pictures, "--draw", "x").exception, ConfigurationError)


def test_what_is_no_model_is_said_to_be_none(tmp_path, reader):
    (tmp_path / "x.onnx").write_bytes(b"no model")
    (tmp_path / "x.txt").write_bytes(b"no model")
    (tmp_path / "empty").mkdir()
    for path, kind in (("x.onnx", DataError), ("x.txt", DataError), ("empty", DataError), ("gone", InputMissingError)):
        with pytest.raises(kind, match=path):
            open_model(tmp_path / path)


def test_a_damaged_checkpoint_is_refused(reader, tmp_path):
    shutil.copytree(reader.root, tmp_path / "copy")
    folder = next((tmp_path / "copy" / reader.run / "checkpoints").iterdir())
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")

    with pytest.raises(DataError, match="checksum"):
        open_model(folder)
