"""Exports of tables and turned lines compute what the trained models do: in ONNX, and in `paddleocr` by its own way in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import paddle
import pytest

from ocr_finetune_api.model_table import Kind, lookup
from ocr_finetune_trainer import models
from ocr_finetune_trainer.evaluation.networks import LayerNetwork, OnnxNetwork
from ocr_finetune_trainer.evaluation.orientation import OrientationClassifier
from ocr_finetune_trainer.evaluation.subjects import build_subject
from ocr_finetune_trainer.evaluation.tables import TableReader
from ocr_finetune_trainer.export.exporter import settings_for
from ocr_finetune_trainer.export.onnx_format import save_onnx
from ocr_finetune_trainer.export.paddle_format import save_paddle
from ocr_finetune_trainer.export.serving import ServedOrientation, ServedTableReader
from ocr_finetune_trainer.export.table_checks import same_tables
from ocr_finetune_trainer.models.table import ServedTable

if TYPE_CHECKING:
    from paddle import nn

    from ocr_finetune_trainer.evaluation.subjects import Subject

TABLES = ("SLANet", "SLANet_plus", "SLANet_small")
LINES = ("PP-LCNet_x0_25_textline_ori", "PP-LCNet_x1_0_textline_ori")


def _trained(name: str) -> nn.Layer:
    """A model whose batch norms have the statistics of a batch, so that its output hangs on its input."""
    paddle.seed(3)
    model = models.build(name)
    for layer in model.sublayers():
        if isinstance(layer, paddle.nn.BatchNorm2D):
            layer._momentum = 0.0
    side = 160
    batch = {
        "structure": paddle.zeros([2, 4], dtype="int64"),
        "length": paddle.full([2], 2, dtype="int64"),
    }
    with paddle.no_grad():
        models.train_forward(model, paddle.randn([2, 3, side, side]), batch)
    model.eval()
    return model


def _pictures() -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    return [rng.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in ((60, 90), (200, 60))]


def _export(name: str, folder: Path) -> tuple[Subject, nn.Layer]:
    trained = _trained(name)
    info = lookup(name)
    arrays = {key: tensor.numpy() for key, tensor in trained.state_dict().items()}
    subject = build_subject(name, arrays, kind=info.kind, dictionary=None, note="")
    layer = subject.layer
    if info.kind is Kind.TABLE:
        # Untrained, it never ends: two dozen tokens show as much as 500.
        trained.head.max_text_length = layer.head.max_text_length = 24
        layer = ServedTable(layer)
        layer.eval()
    save_paddle(layer, folder=folder / "paddle", geometry=subject.geometry, config=settings_for(subject))
    save_onnx(folder / "paddle", path=folder / "model.onnx", geometry=subject.geometry, metadata={})
    return subject, trained


@pytest.mark.parametrize("name", TABLES)
def test_a_table_model_is_served_as_it_was_trained(name: str, tmp_path: Path) -> None:
    subject, trained = _export(name, tmp_path)
    served = ServedTableReader(tmp_path / "paddle", serving_name=lookup(name).serving_name)
    ours, onnx = (
        TableReader(network, geometry=subject.geometry, batch_size=1)
        for network in (LayerNetwork(trained), OnnxNetwork(tmp_path / "model.onnx"))
    )
    x = subject.geometry.batch(_pictures())
    wanted = LayerNetwork(ServedTable(trained)).run_all(x)
    assert np.abs(wanted[1][0] - wanted[1][1]).max() > 1e-4, "an output that hangs on nothing proves nothing"
    for made, value in zip(OnnxNetwork(tmp_path / "model.onnx").run_all(x), wanted, strict=True):
        assert np.abs(made - value).max() < 1e-3
    for picture in _pictures():
        expected = ours.read([picture])[0]
        assert same_tables(served.read(picture), expected)
        assert same_tables(onnx.read([picture])[0], expected)


@pytest.mark.parametrize("name", LINES)
def test_an_orientation_model_is_served_as_it_was_trained(name: str, tmp_path: Path) -> None:
    subject, trained = _export(name, tmp_path)
    served = ServedOrientation(tmp_path / "paddle", serving_name=name)
    pictures = _pictures()
    expected = OrientationClassifier(LayerNetwork(trained), geometry=subject.geometry).turned(pictures)
    onnx = OrientationClassifier(OnnxNetwork(tmp_path / "model.onnx"), geometry=subject.geometry).turned(pictures)
    assert served.turned(pictures) == pytest.approx(list(expected), abs=1e-3)
    assert list(onnx) == pytest.approx(list(expected), abs=1e-3)
    assert abs(expected[0] - expected[1]) > 1e-4, "an output that hangs on nothing proves nothing"
