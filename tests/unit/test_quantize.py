"""Smaller models: as good as was asked for, or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from trained_run import DICTIONARY, MODEL, context_for, digits, make_run, spec_of, trained_weights

from ocr_finetune_api.model_table import Kind
from ocr_finetune_api.plan import Stage
from ocr_finetune_trainer.evaluation.networks import OnnxNetwork
from ocr_finetune_trainer.evaluation.reader import Recogniser
from ocr_finetune_trainer.evaluation.subjects import build_subject
from ocr_finetune_trainer.export.exporter import Exporter
from ocr_finetune_trainer.export.quantize import quantize_int8, to_fp16
from ocr_finetune_trainer.geometry import recognition_geometry
from ocr_finetune_trainer.stages import export

pytestmark = pytest.mark.filterwarnings("ignore:When training, we now always track:UserWarning")

GEOMETRY = recognition_geometry(MODEL)


@pytest.fixture(scope="module")
def float_model(tmp_path_factory):
    subject = build_subject(MODEL, trained_weights(200), kind=Kind.RECOGNITION, dictionary=DICTIONARY, note="")
    exporter = Exporter(
        subject=subject,
        folder=tmp_path_factory.mktemp("model"),
        checker=None,
        metrics={},
        max_drop=0,
        tell=lambda _: None,
    )
    exporter.make_paddle()
    exporter.make_onnx()
    return exporter.onnx


@pytest.fixture(scope="module")
def calibration():
    return [GEOMETRY.batch([image]) for image, _ in digits(40)]


def accuracy(path: Path) -> float:
    reader = Recogniser(OnnxNetwork(path), geometry=GEOMETRY, dictionary=DICTIONARY)
    samples = digits(200, start=1000)
    texts = [text for text, _ in reader.read([image for image, _ in samples])]
    return float(np.mean([text == label for text, (_, label) in zip(texts, samples, strict=True)]))


def operators(path):
    return [node.op_type for node in onnx.load(str(path)).graph.node]


def metadata(path):
    return {entry.key: entry.value for entry in onnx.load(str(path)).metadata_props}


def test_int8_is_smaller_and_reads_as_well(float_model, calibration, tmp_path):
    before = accuracy(float_model)
    target = tmp_path / "int8.onnx"

    result = quantize_int8(
        float_model, target, calibration=calibration, drop_of=lambda file: before - accuracy(file), max_drop=0.03
    )

    assert result.within
    assert accuracy(target) >= before - 0.03
    assert result.size == target.stat().st_size
    assert result.ratio < 0.5
    assert result.in_float["Conv.0"] == "first layer"
    assert "head" in result.in_float.values()
    assert metadata(target) == metadata(float_model)
    assert "QuantizeLinear" in operators(target)
    # So small a model is mostly its graph, and the note says so.
    assert result.note().endswith(", because it is small itself")


def with_an_outlier(path, target):
    """The same model, but that one channel in its middle is huge and then ignored: eight bits hold nothing beside it.

    Returns:
        Name of the layer whose input that is.
    """
    model = onnx.load(str(path))
    weights = {value.name: value for value in model.graph.initializer}
    makers = {output: node for node in model.graph.node for output in node.output}
    depthwise = [
        node
        for node in model.graph.node
        if node.op_type == "Conv" and any(a.name == "group" and a.i > 1 for a in node.attribute)
    ]
    layer = depthwise[len(depthwise) // 2]
    before = makers[layer.input[0]]
    while before.op_type != "Conv":
        before = makers[next(name for name in before.input if name in makers)]

    def change(name, channel, value):
        array = numpy_helper.to_array(weights[name]).copy()
        array[channel] = value
        weights[name].CopyFrom(numpy_helper.from_array(array, name))

    # The channel that matters least to what follows.
    channel = int(np.abs(numpy_helper.to_array(weights[layer.input[1]])).sum(axis=(1, 2, 3)).argmin())
    change(before.input[1], channel, 0.0)
    change(before.input[2], channel, 30_000.0)
    change(layer.input[1], channel, 0.0)
    onnx.save(model, str(target))
    return layer.name


def test_the_layer_that_eight_bits_hurt_stays_in_float_and_is_named(float_model, calibration, tmp_path):
    hurt = with_an_outlier(float_model, tmp_path / "float.onnx")
    before = accuracy(tmp_path / "float.onnx")
    assert before > accuracy(float_model) - 0.05

    result = quantize_int8(
        tmp_path / "float.onnx",
        tmp_path / "int8.onnx",
        calibration=calibration,
        drop_of=lambda file: before - accuracy(file),
        max_drop=0.05,
    )

    assert result.tried[0][1] > 0.05
    assert result.within
    assert not result.weights_only
    assert accuracy(tmp_path / "int8.onnx") >= before - 0.05
    assert "dB in eight bits" in result.in_float[hurt]
    assert f"{hurt} (its values keep only" in result.note()


def test_layers_are_left_in_float_until_the_metric_is_kept(float_model, calibration, tmp_path):
    asked = []

    def drop_of(file):
        asked.append(operators(file).count("QuantizeLinear"))
        return 0.5 if len(asked) < 4 else 0.0

    result = quantize_int8(float_model, tmp_path / "int8.onnx", calibration=calibration, drop_of=drop_of, max_drop=0.01)

    assert result.within
    assert asked == sorted(asked, reverse=True)
    assert len(set(asked)) == 4
    assert sum("dB in eight bits" in reason for reason in result.in_float.values()) == result.tried[-1][0] > 0


def test_the_last_resort_stores_weights_alone_and_then_says_no(float_model, calibration, tmp_path):
    target = tmp_path / "int8.onnx"

    result = quantize_int8(float_model, target, calibration=calibration, drop_of=lambda _: 1.0, max_drop=0.01)
    refused = quantize_int8(
        float_model, target, calibration=calibration, drop_of=lambda _: 0.0, accept=lambda _: False, max_drop=0.01
    )

    assert not result.within
    assert not refused.within
    assert refused.tried[-1][0] == len(refused.in_float) - 2
    x = calibration[0]
    assert np.abs(OnnxNetwork(target).run(x) - OnnxNetwork(float_model).run(x)).max() < 0.5


def test_there_must_be_something_to_calibrate_with(float_model, tmp_path):
    with pytest.raises(ValueError, match="at least one picture"):
        quantize_int8(float_model, tmp_path / "x", calibration=[], drop_of=lambda _: 0.0, max_drop=0.01)


def test_fp16_halves_the_file_and_keeps_the_texts(float_model, tmp_path):
    target = tmp_path / "fp16.onnx"

    to_fp16(float_model, target)

    assert target.stat().st_size < 0.6 * float_model.stat().st_size
    assert accuracy(target) == pytest.approx(accuracy(float_model), abs=0.005)
    assert metadata(target) == metadata(float_model)
    assert OnnxNetwork(target).run(GEOMETRY.batch([digits(1)[0][0]])).dtype == np.float32


@pytest.mark.parametrize("max_drop", [0.05, 0.0])
def test_the_export_ships_int8_or_says_why_not(tmp_path, max_drop):
    make_run(tmp_path)
    spec = spec_of(export={"quantize": "int8", "maxDrop": max_drop})

    outcome = export.run(context_for(tmp_path, Stage.EXPORT, spec=spec))

    said = outcome.details["quantized"]
    folder = context_for(tmp_path, Stage.EXPORT).workspace.export
    assert said["shipped"] == (folder / "int8" / "inference.onnx").is_file() == ("int8" in outcome.artifacts)
    assert ("is not shipped" in said["note"]) == (not said["shipped"])
    assert said["note"] in (folder / "model-card.md").read_text()
    if said["shipped"]:
        assert outcome.metrics["formats"]["int8"]["drop"] <= max_drop
    if max_drop == 0.05:
        assert said["shipped"]
