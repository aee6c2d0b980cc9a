"""One geometry a model: equal to PaddleOCR's figures and to what `paddleocr` 3.7 serves with."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ocr_finetune_trainer.geometry import (
    OTHER_RULES,
    PIPELINE_RULE,
    DetectionGeometry,
    FixedRule,
    LimitRule,
    LimitType,
    LongSideRule,
    RecognitionGeometry,
    detection_geometry,
    geometry_for,
    recognition_geometry,
)

FIGURES = Path(__file__).parent.parent / "parity" / "figures"
FACTS = json.loads((FIGURES / "detection_ops.json").read_text())


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    with np.load(FIGURES / "detection_ops.npz") as archive:
        return dict(archive)


@pytest.mark.parametrize("index", range(len(FACTS["rec_resize"])))
def test_recognition_resize_equals_the_figures(index: int, arrays: dict[str, np.ndarray]) -> None:
    fixed = RecognitionGeometry(max_width=320, buckets=(320,))
    picture = arrays[f"rec_resize_in_{index}"]
    assert np.allclose(fixed.batch([picture])[0], arrays[f"rec_resize_out_{index}"].astype(np.float32), atol=1e-3)
    content = fixed.content_width(height=picture.shape[0], width=picture.shape[1])
    assert content / 320 == pytest.approx(FACTS["rec_resize"][index]["valid_ratio"])


def _rule(args: dict) -> LimitRule | LongSideRule | FixedRule:
    if "image_shape" in args:
        return FixedRule(name="fixed", height=args["image_shape"][0], width=args["image_shape"][1])
    if "resize_long" in args:
        return LongSideRule(name="long", long_side=args["resize_long"])
    return LimitRule(
        name="limit",
        limit_side_len=args.get("limit_side_len", 736),
        limit_type=LimitType(args.get("limit_type", "min")),
    )


@pytest.mark.parametrize("case", FACTS["det_resize"], ids=str)
def test_detection_resize_equals_the_figures(case: dict) -> None:
    geometry = DetectionGeometry().with_rule(_rule(case["args"]))
    height, width = case["size"]
    page = geometry.resize(np.zeros((height, width, 3), np.uint8))
    assert list(page.picture.shape[:2]) == case["out"]
    assert np.allclose([page.height, page.width, page.ratio_height, page.ratio_width], case["shape"])


SERVED_SIZES = [(48, 320), (31, 400), (20, 2000), (17, 9), (48, 321), (100, 6700), (1, 70)]


@pytest.mark.parametrize("name", ["PP-OCRv5_mobile_rec", "MobileNetV3_small_ctc"])
def test_recognition_batches_equal_what_paddleocr_serves(name: str) -> None:
    from paddlex.inference.models.text_recognition.processors import OCRReisizeNormImg, ToBatch

    geometry = recognition_geometry(name)
    rng = np.random.default_rng(7)
    pictures = [rng.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in SERVED_SIZES]
    served = OCRReisizeNormImg(rec_image_shape=[3, geometry.height, geometry.min_width])
    for group in ([picture] for picture in pictures):
        assert np.allclose(geometry.batch(group), ToBatch()(served(group))[0], atol=1e-5)
    assert np.allclose(geometry.batch(pictures), ToBatch()(served(pictures))[0], atol=1e-5)


@pytest.mark.parametrize("rule", [PIPELINE_RULE, *OTHER_RULES], ids=lambda rule: rule.name)
@pytest.mark.parametrize("size", [(300, 500), (20, 30), (31, 33), (45, 4100), (1500, 900), (64, 48)])
def test_pages_equal_what_paddleocr_serves(rule: LimitRule, size: tuple[int, int]) -> None:
    from paddlex.inference.models.text_detection.processors import DetResizeForTest, NormalizeImage

    geometry = DetectionGeometry().with_rule(rule)
    picture = np.random.default_rng(3).integers(0, 256, (*size, 3), dtype=np.uint8)
    page = geometry.resize(picture)
    served, shapes = DetResizeForTest(limit_side_len=rule.limit_side_len, limit_type=rule.limit_type.value)([picture])
    assert np.array_equal(page.picture, served[0])
    assert np.allclose([page.height, page.width, page.ratio_height, page.ratio_width], shapes[0])
    normalized = NormalizeImage(order="hwc")(served)[0].transpose(2, 0, 1)
    assert np.allclose(geometry.normalization(page.picture), normalized, atol=1e-5)


def test_the_rule_of_the_pipeline_is_that_of_paddleocr() -> None:
    from paddlex.inference import load_pipeline_config

    served = load_pipeline_config("OCR")["SubModules"]["TextDetection"]
    assert PIPELINE_RULE.limit_side_len == served["limit_side_len"]
    assert PIPELINE_RULE.limit_type == served["limit_type"]
    assert PIPELINE_RULE.max_side_limit == served["max_side_limit"]


def test_buckets_hold_every_crop() -> None:
    geometry = recognition_geometry("PP-OCRv5_mobile_rec")
    for width in (1, 320, 321, 3000, 90000):
        content = geometry.content_width(height=48, width=width)
        assert content <= geometry.bucket(content) <= 3200
    assert geometry.bucket(320) == 320
    assert geometry.bucket(321) == 480
    with pytest.raises(ValueError, match="widest bucket"):
        geometry.bucket(3201)


def test_a_training_crop_is_no_larger_than_pages() -> None:
    geometry = DetectionGeometry()
    for sizes, crop in (
        ([(1000, 800)] * 5, (640, 640)),
        ([(300, 250)] * 5, (256, 288)),
        ([(300, 250)] * 19 + [(4000, 3000)], (256, 288)),
        ([(60, 40)] * 3, (128, 128)),
        ([], (640, 640)),
    ):
        fitted = geometry.for_pages(np.asarray(sizes, np.int32).reshape(-1, 2))
        assert (fitted.train_height, fitted.train_width) == crop
        assert fitted.rule == geometry.rule


def test_wrong_pictures_and_settings_are_named() -> None:
    geometry = RecognitionGeometry()
    with pytest.raises(ValueError, match="empty picture of 0x5"):
        geometry.resize(np.zeros((5, 0, 3), np.uint8))
    with pytest.raises(ValueError, match="uint8"):
        geometry.resize(np.zeros((5, 4, 3), np.float32))
    with pytest.raises(ValueError, match="at least one picture"):
        geometry.batch([])
    with pytest.raises(ValueError, match="doesn't fit into 320"):
        geometry.batch([np.zeros((10, 200, 3), np.uint8)], width=320)
    with pytest.raises(ValueError, match="buckets must rise"):
        RecognitionGeometry(buckets=(320, 160))
    with pytest.raises(ValueError, match="multiples of 32"):
        DetectionGeometry(train_width=650)
    with pytest.raises(ValueError, match="must be positive"):
        LimitRule(name="x", limit_side_len=0, limit_type=LimitType.MAX)


def test_each_kind_has_its_geometry() -> None:
    assert isinstance(geometry_for("PP-OCRv3_mobile_det"), DetectionGeometry)
    assert isinstance(geometry_for("PP-OCRv5_mobile_rec"), RecognitionGeometry)
    with pytest.raises(ValueError, match="not a detection model"):
        detection_geometry("PP-OCRv5_mobile_rec")
    with pytest.raises(KeyError, match="did you mean"):
        geometry_for("PP-OCRv5_mobile_rek")
