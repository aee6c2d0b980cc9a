"""Each model's export computes what the trained model computes: in Paddle's engine, in ONNX, and in `paddleocr`.

The path is that of the export stage: the trained arrays go into the model as it is served, folded and without a guided
branch, and that is written. Reference is the model that was trained, as it stands in training's validation.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import paddle
import pytest

from ocr_finetune_api.model_table import Kind, lookup
from ocr_finetune_trainer import models
from ocr_finetune_trainer.dictionary import Dictionary
from ocr_finetune_trainer.evaluation.detection import Detector
from ocr_finetune_trainer.evaluation.networks import LayerNetwork, OnnxNetwork, PaddleInferenceNetwork
from ocr_finetune_trainer.evaluation.reader import Padding, Recogniser
from ocr_finetune_trainer.evaluation.subjects import build_subject
from ocr_finetune_trainer.export.exporter import settings_for
from ocr_finetune_trainer.export.onnx_format import metadata_for, save_onnx
from ocr_finetune_trainer.export.paddle_format import save_paddle
from ocr_finetune_trainer.export.serving import ServedDetector, ServedReader

if TYPE_CHECKING:
    from paddle import nn

    from ocr_finetune_trainer.evaluation.subjects import Subject

DICTIONARY = Dictionary(tuple("abcdefghij"))
LARGE = {
    "PP-OCRv6_medium_rec",
    "PP-OCRv6_medium_det",
    "CRNN_r34_vd",
    "PP-OCRv5_server_rec",
    "PP-OCRv4_server_rec",
    "PP-OCRv5_server_det",
    "PP-OCRv4_server_det",
    "DB_r50_vd",
}
NAMES = (
    "PP-OCRv5_mobile_rec",
    "PP-OCRv5_server_rec",
    "PP-OCRv4_mobile_rec",
    "PP-OCRv4_server_rec",
    "PP-OCRv3_mobile_rec",
    "PP-OCRv3_mobile_rec_ctc",
    "CRNN_r34_vd",
    "PP-OCRv6_tiny_rec",
    "PP-OCRv6_small_rec",
    "PP-OCRv6_medium_rec",
    "PP-OCRv6_tiny_det",
    "PP-OCRv6_small_det",
    "PP-OCRv6_medium_det",
    "PP-OCRv5_mobile_det",
    "PP-OCRv5_server_det",
    "PP-OCRv4_mobile_det",
    "PP-OCRv4_server_det",
    "PP-OCRv3_mobile_det",
    "PP-OCRv2_mobile_det",
    "DB_mv3",
    "DB_r50_vd",
)


def _shapes(name: str) -> list[tuple[int, int, int]]:
    """Batch, height and width: a narrow and a wide picture, alone and as a batch of 8; for large models one of each."""
    if lookup(name).kind is Kind.DETECTION:
        narrow, wide = (128, 32), (32, 160)
    else:
        height = 32 if name == "CRNN_r34_vd" else 48
        narrow, wide = (height, 64), (height, 400)
    if name in LARGE:
        return [(1, *wide), (8, *narrow)]
    return [(batch, *size) for size in (narrow, wide) for batch in (1, 8)]


def _trained(name: str) -> nn.Layer:
    """A model whose batch norms have the statistics of a batch, so that its output hangs on its input."""
    paddle.seed(1)
    model = models.build(name, characters=DICTIONARY.size)
    for layer in model.sublayers():
        if isinstance(layer, paddle.nn.BatchNorm2D):
            layer._momentum = 0.0
    height, width = (64, 96) if lookup(name).kind is Kind.DETECTION else (_shapes(name)[0][1], 96)
    labels = {"label_gtc": paddle.to_tensor([[2, 4, 5, 3]] * 4), "label_ctc": paddle.to_tensor([[1, 2]] * 4)}
    batch = {**labels, "length": paddle.to_tensor([2] * 4)}
    with paddle.no_grad():
        models.train_forward(model, paddle.randn([4, 3, height, width]), batch)
    model.eval()
    return model


@dataclass(frozen=True)
class Export:
    name: str
    trained: nn.Layer
    subject: Subject
    paddle: Path
    onnx: Path


@pytest.fixture(scope="module", params=NAMES)
def export(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Export:
    name, folder = request.param, tmp_path_factory.mktemp("export")
    trained = _trained(name)
    info = lookup(name)
    subject = build_subject(
        name,
        {key: tensor.numpy() for key, tensor in trained.state_dict().items()},
        kind=info.kind,
        dictionary=DICTIONARY if info.kind is Kind.RECOGNITION else None,
        note="",
    )
    config = settings_for(subject)
    save_paddle(subject.layer, folder=folder / "paddle", geometry=subject.geometry, config=config)
    metadata = metadata_for(
        model_name=name,
        serving_name=info.serving_name,
        geometry=subject.geometry,
        dictionary=subject.dictionary,
        metrics={},
        config=config,
    )
    save_onnx(folder / "paddle", path=folder / "model.onnx", geometry=subject.geometry, metadata=metadata)
    return Export(name, trained, subject, folder / "paddle", folder / "model.onnx")


def test_paddle_and_onnx_equal_the_trained_model(export: Export) -> None:
    rng = np.random.default_rng(2)
    engines = {"paddle": PaddleInferenceNetwork(export.paddle), "onnx": OnnxNetwork(export.onnx)}
    for batch, height, width in _shapes(export.name):
        x = rng.standard_normal((batch, 3, height, width)).astype(np.float32)
        expected = LayerNetwork(export.trained).run(x)
        assert expected.std() > 1e-3, "an output that hangs on nothing proves nothing"
        for engine, network in engines.items():
            made = network.run(x)
            assert made.shape == expected.shape
            assert np.abs(made - expected).max() < 1e-3, (engine, x.shape)


def test_paddleocr_serves_it_by_name(export: Export) -> None:
    serving_name = lookup(export.name).serving_name
    rng = np.random.default_rng(3)
    pictures = [rng.integers(0, 256, (48, width, 3), dtype=np.uint8) for width in (40, 400)]
    if export.subject.kind is Kind.RECOGNITION:
        reader = ServedReader(export.paddle, serving_name=serving_name)
        _same_tensors(reader, export, pictures)
        ours = Recogniser(
            export.trained, geometry=export.subject.geometry, dictionary=DICTIONARY, padding=Padding.SERVING
        ).read(pictures)
        for served, expected in zip(reader.read(pictures), ours, strict=True):
            assert served.text == expected.text
            assert served.score == pytest.approx(expected.score, abs=1e-3)
        return
    detector = ServedDetector(export.paddle, serving_name=serving_name)
    _same_tensors(detector, export, pictures)
    for picture in pictures:
        found = Detector(export.trained, geometry=export.subject.geometry).detect(picture)
        assert len(detector.detect(picture)) == len(found)


def _same_tensors(served: Any, export: Export, pictures: list[np.ndarray]) -> None:
    """`paddleocr`'s own engine on our input."""
    normalise = export.subject.geometry.normalization
    for picture in pictures:
        height = 32 if export.name == "CRNN_r34_vd" or export.subject.kind is Kind.DETECTION else 48
        x = normalise(np.ascontiguousarray(picture[:height, : picture.shape[1] // 32 * 32]))[None]
        expected = LayerNetwork(export.trained).run(x)
        assert np.abs(served._model.paddlex_predictor.runner(x=[x])[0] - expected).max() < 1e-3
