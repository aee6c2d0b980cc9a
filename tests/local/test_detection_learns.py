"""A detector learns on drawn pages in seconds, and `paddleocr` finds with its export what we find.

Everything between a label and a served box takes part: samples, targets, loss, post-processing, metric, export.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import paddle
import pytest

from ocr_finetune_trainer import losses, models
from ocr_finetune_trainer.data.detection_samples import DetectionAugmentation, DetectionTransform
from ocr_finetune_trainer.evaluation.db_postprocess import DBPostProcess
from ocr_finetune_trainer.evaluation.networks import LayerNetwork, OnnxNetwork
from ocr_finetune_trainer.export.inference_config import detection_config
from ocr_finetune_trainer.export.onnx_format import save_onnx
from ocr_finetune_trainer.export.paddle_format import save_paddle
from ocr_finetune_trainer.geometry import DetectionGeometry
from ocr_finetune_trainer.metrics.detection import DetectionCounts, match_page
from ocr_finetune_trainer.models.fusing import fuse_for_inference

if TYPE_CHECKING:
    from pathlib import Path

    from paddle import nn

HEIGHT, WIDTH = 144, 192
GEOMETRY = DetectionGeometry(train_height=96, train_width=128)
STEPS = 60


@dataclass(frozen=True)
class Page:
    image: bytes
    width: int
    height: int
    polygons: list[np.ndarray]
    ignored: list[bool]
    origin: str = "drawn"


def _draw(rng: np.random.Generator) -> Page:
    """Three lines of strokes on noisy paper."""
    picture = rng.normal(200, 12, (HEIGHT, WIDTH, 3)).clip(0, 255).astype(np.uint8)
    polygons = []
    for row in range(3):
        x, y = rng.uniform(8, 40), 12 + row * 44 + rng.uniform(-3, 3)
        width, height = rng.uniform(60, 130), rng.uniform(18, 28)
        polygons.append(np.array([[x, y], [x + width, y], [x + width, y + height], [x, y + height]], np.float32))
        for stroke in np.arange(x + 3, x + width - 6, 9):
            ends = (int(stroke), int(y + 3)), (int(stroke + rng.integers(0, 6)), int(y + height - 4))
            cv2.line(picture, *ends, (40, 40, 40), 3)
    return Page(cv2.imencode(".png", picture)[1].tobytes(), WIDTH, HEIGHT, polygons, [False] * 3)


def _decoded(page: Page) -> np.ndarray:
    return np.asarray(cv2.imdecode(np.frombuffer(page.image, np.uint8), cv2.IMREAD_COLOR))


@pytest.fixture(scope="module")
def trained() -> nn.Layer:
    paddle.seed(0)
    model, loss = models.build("DB_mv3"), losses.build("DB_mv3")
    pages = [_draw(np.random.default_rng((1, i))) for i in range(24)]
    transform = DetectionTransform(
        geometry=GEOMETRY, augmentation=DetectionAugmentation(zoom=(0.8, 1.25), rotation=5.0)
    )
    optimizer = paddle.optimizer.Adam(2e-3, parameters=model.parameters())
    scale, shift = paddle.to_tensor(GEOMETRY.normalization.scale), paddle.to_tensor(GEOMETRY.normalization.shift)
    model.train()
    for step in range(STEPS):
        samples = [transform(pages[(4 * step + i) % len(pages)], np.random.default_rng((step, i))) for i in range(4)]
        batch = {name: paddle.to_tensor(np.stack([s[name] for s in samples])) for name in samples[0]}
        x = (batch["image"].astype("float32") * scale + shift).transpose([0, 3, 1, 2])
        loss(models.train_forward(model, x, batch), batch)["loss"].backward()
        optimizer.step()
        optimizer.clear_grad()
        if step == STEPS * 2 // 3:
            optimizer.set_lr(5e-4)
    return fuse_for_inference(model)


def _find(network: Any, picture: np.ndarray) -> list[Any]:
    page = GEOMETRY.resize(picture)
    probability = network.run(GEOMETRY.normalization(page.picture)[None])[0, 0]
    return DBPostProcess()(probability, height=page.height, width=page.width)


@pytest.mark.slow
def test_it_finds_texts_on_unseen_pages(trained: nn.Layer) -> None:
    counts = DetectionCounts()
    for i in range(12):
        page = _draw(np.random.default_rng((2, i)))
        regions = _find(LayerNetwork(trained), _decoded(page))
        counts += match_page(page.polygons, page.ignored, [region.points for region in regions]).counts
    assert counts.truths == 36
    assert counts.scores().hmean >= 0.8, counts


@pytest.fixture(scope="module")
def exported(trained: nn.Layer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    config = detection_config(serving_name="PP-OCRv3_mobile_det", geometry=GEOMETRY, postprocess=DBPostProcess())
    save_paddle(trained, folder=folder / "paddle", geometry=GEOMETRY, config=config)
    save_onnx(folder / "paddle", path=folder / "model.onnx", geometry=GEOMETRY, metadata={})
    return folder


@pytest.mark.slow
def test_paddleocr_finds_what_we_find(trained: nn.Layer, exported: Path) -> None:
    from ocr_finetune_trainer.export.serving import ServedDetector, paddleocr

    detector = ServedDetector(exported / "paddle", serving_name="PP-OCRv3_mobile_det")
    alone = paddleocr().TextDetection(
        model_name="PP-OCRv3_mobile_det", model_dir=str(exported / "paddle"), device="cpu"
    )
    found = 0
    for i in range(3):
        picture = _decoded(_draw(np.random.default_rng((3, i))))
        if i == 2:  # wider than the 960 pixels that it would shrink a page to by itself
            picture = np.concatenate([picture] * 6, axis=1)
        regions = _find(LayerNetwork(trained), picture)
        served = detector.detect(picture)
        assert [region.points.tolist() for region in regions] == [points.tolist() for points, _ in served]
        assert [region.score for region in regions] == pytest.approx([score for _, score in served], abs=1e-3)
        by_itself = alone.predict(picture)[0]["dt_polys"]
        assert [region.points.tolist() for region in regions] == [points.tolist() for points in by_itself]
        found += len(regions)
    assert found > 10


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 3, 32, 320), (1, 3, 256, 64), (8, 3, 64, 96)], ids=str)
def test_onnx_equals_the_model(trained: nn.Layer, exported: Path, shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(4).standard_normal(shape).astype(np.float32)
    expected = LayerNetwork(trained).run(x)
    assert expected.std() > 0.01
    assert np.allclose(OnnxNetwork(exported / "model.onnx").run(x), expected, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["PP-OCRv5_mobile_det", "PP-OCRv5_server_det"])
def test_every_kind_of_pyramid_is_served(name: str, tmp_path: Path) -> None:
    """Folded and exported, `paddleocr` gives the model's own map; DB_mv3 above has the third kind of pyramid."""
    from ocr_finetune_trainer.export.serving import ServedDetector

    paddle.seed(1)
    model = models.build(name)
    x = paddle.randn([2, 3, 64, 96])
    for _ in range(3):  # moves the running statistics away from where they start
        models.train_forward(model, x, {})
    model.eval()
    picture = np.random.default_rng(5).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    expected = LayerNetwork(model).run(GEOMETRY.normalization(picture)[None])
    assert expected.std() > 1e-3
    folded = fuse_for_inference(model)
    config = detection_config(serving_name=name, geometry=GEOMETRY, postprocess=DBPostProcess())
    save_paddle(folded, folder=tmp_path / "paddle", geometry=GEOMETRY, config=config)
    save_onnx(tmp_path / "paddle", path=tmp_path / "model.onnx", geometry=GEOMETRY, metadata={})
    assert np.allclose(
        OnnxNetwork(tmp_path / "model.onnx").run(GEOMETRY.normalization(picture)[None]), expected, atol=1e-3
    )
    served = ServedDetector(tmp_path / "paddle", serving_name=name)
    runner = served._model.paddlex_predictor.runner
    assert np.allclose(runner(x=[GEOMETRY.normalization(picture)[None]])[0], expected, atol=1e-3)
