"""Training samples of a detector: what is seen and what is learnt must belong together."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import cv2
import numpy as np
import pytest

from ocr_finetune_trainer.data.augment.detection import View, choose_window, draw, flip, paste, rotate, through
from ocr_finetune_trainer.data.detection_samples import DetectionAugmentation, DetectionTransform
from ocr_finetune_trainer.data.pictures import PictureError
from ocr_finetune_trainer.geometry import DetectionGeometry

GEOMETRY = DetectionGeometry(train_height=256, train_width=320)
CANVAS = (256, 320)


@dataclass(frozen=True)
class Page:
    image: bytes
    width: int
    height: int
    polygons: list[np.ndarray] | None
    ignored: list[bool] = field(default_factory=list)
    origin: str = "train.txt:7"


def _box(x: float, y: float, width: float, height: float) -> np.ndarray:
    return np.array([[x, y], [x + width, y], [x + width, y + height], [x, y + height]], np.float32)


def _page(boxes: list[np.ndarray], *, width: int = 600, height: int = 400, ignored: list[bool] | None = None) -> Page:
    """White boxes on a dark page, so that each pixel says whether it is text."""
    picture = np.full((height, width, 3), 60, np.uint8)
    for box in boxes:
        (left, top), (right, bottom) = np.round(box.min(axis=0)).astype(int), np.round(box.max(axis=0)).astype(int)
        picture[max(top, 0) : bottom, max(left, 0) : right] = 255
    encoded = cv2.imencode(".png", picture)[1].tobytes()
    return Page(encoded, width, height, boxes, ignored or [False] * len(boxes))


GRID = [_box(40 + 180 * column, 30 + 70 * row, 120, 30) for row in range(5) for column in range(3)]


@pytest.mark.parametrize("seed", range(25))
def test_what_is_learnt_is_what_is_seen(seed: int) -> None:
    sample = DetectionTransform(geometry=GEOMETRY)(_page(GRID), np.random.default_rng(seed))
    image, core = sample["image"], sample["shrink_map"]
    assert image.shape == (*CANVAS, 3)
    assert image.dtype == np.uint8
    assert core.sum() > 0
    assert (image[core == 1] > 240).mean() > 0.999  # cores lie in boxes
    bright = cv2.erode((image[..., 0] > 240).astype(np.uint8) & sample["shrink_mask"], np.ones((5, 5))) == 1
    grown = cv2.dilate(core, np.ones((3, 3), np.uint8), iterations=60)
    assert grown[bright].all()  # every box that isn't masked has a core
    high = sample["threshold_map"] > 0.69
    assert (cv2.dilate(image[..., 0], np.ones((5, 5)))[high] > 200).all()
    assert (cv2.erode(image[..., 0], np.ones((5, 5)))[high] < 200).all()


def test_the_same_seed_makes_the_same_sample() -> None:
    transform, page = DetectionTransform(geometry=GEOMETRY), _page(GRID)
    first, again, other = (transform(page, np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["image"], other["image"])


def test_without_augmentation_a_small_page_stays_as_it_is() -> None:
    page = _page([_box(50, 60, 120, 30)], width=320, height=256)
    transform = DetectionTransform(geometry=GEOMETRY, augmentation=DetectionAugmentation.none())
    sample = transform(page, np.random.default_rng(0))
    assert np.array_equal(sample["image"], cv2.imdecode(np.frombuffer(page.image, np.uint8), cv2.IMREAD_COLOR))


def test_a_page_is_reduced_to_its_size_at_serving() -> None:
    """A page beyond the serving limit of 4000 is trained at the size it will have, and decoded at half of its own."""
    page = _page([_box(500, 300, 200, 100)], width=8000, height=640)
    transform = DetectionTransform(geometry=GEOMETRY, augmentation=DetectionAugmentation.none())
    sample = transform(page, np.random.default_rng(0))
    assert (sample["image"][..., 0] > 240).sum() == pytest.approx(100 * 50, rel=0.05)
    assert sample["shrink_map"].sum() > 0


def test_texts_larger_than_the_canvas_are_made_smaller() -> None:
    page = _page([_box(100, 100, 1600, 300)], width=2000, height=640)
    transform = DetectionTransform(geometry=GEOMETRY, augmentation=DetectionAugmentation.none())
    sample = transform(page, np.random.default_rng(0))
    assert (sample["image"][..., 0] > 240).sum() == pytest.approx(1600 * 300 * (320 / 1600) ** 2, rel=0.05)


def test_texts_are_not_cut() -> None:
    """Every window keeps each text whole or leaves it out, and has at least one."""
    rng = np.random.default_rng(1)
    for _ in range(300):
        view = View.of_page(width=900, height=700)
        boxes = [_box(*rng.uniform(0, (850, 660)), *rng.uniform((5, 5), (400, 60))) for _ in range(rng.integers(1, 25))]
        window = choose_window(view, boxes, rng, canvas=CANVAS, zoom=(0.5, 3.0))
        left, top, right, bottom = window.left, window.top, window.left + window.width, window.top + window.height
        assert 0 <= left < right <= 900.001
        assert 0 <= top < bottom <= 700.001
        assert window.width * window.zoom <= 320.001
        assert window.height * window.zoom <= 256.001
        whole = 0
        for box in boxes:
            (x1, y1), (x2, y2) = np.clip(box.min(axis=0), 0, (900, 700)), np.clip(box.max(axis=0), 0, (900, 700))
            if x2 <= left + 1e-3 or x1 >= right - 1e-3 or y2 <= top + 1e-3 or y1 >= bottom - 1e-3:
                continue
            assert left <= x1 + 1e-3
            assert x2 <= right + 1e-3
            assert top <= y1 + 1e-3
            assert y2 <= bottom + 1e-3
            whole += 1
        assert whole > 0


def test_magnification_is_what_was_asked_for() -> None:
    rng = np.random.default_rng(2)
    view, boxes = View.of_page(width=3000, height=2000), [_box(1400, 900, 60, 20)]
    zooms = [choose_window(view, boxes, rng, canvas=CANVAS, zoom=(0.5, 3.0)).zoom for _ in range(400)]
    assert 0.5 <= min(zooms) < 0.55
    assert 2.8 < max(zooms) <= 3.0
    assert np.median(zooms) == pytest.approx(np.sqrt(0.5 * 3.0), rel=0.15)


def test_pages_without_text_and_with_unreadable_text_only() -> None:
    transform = DetectionTransform(geometry=GEOMETRY)
    for seed in range(5):
        empty = transform(_page([]), np.random.default_rng(seed))
        assert not empty["shrink_map"].any()
        assert empty["shrink_mask"].all()
        unreadable = transform(_page([_box(100, 100, 300, 150)], ignored=[True]), np.random.default_rng(seed))
        assert not unreadable["shrink_map"].any()
        assert not unreadable["threshold_mask"].any()


def test_a_text_cut_by_the_canvas_is_masked() -> None:
    """Around a tall text the canvas shows parts of its neighbours; they are seen but not learnt."""
    tall = [_box(60, 10 + 210 * row, 100, 200) for row in range(5)]
    page = _page(tall, width=320, height=1070)
    transform = DetectionTransform(geometry=GEOMETRY, augmentation=DetectionAugmentation.none())
    cut = 0
    for seed in range(10):
        sample = transform(page, np.random.default_rng(seed))
        bright = cv2.erode((sample["image"][..., 0] > 240).astype(np.uint8), np.ones((3, 3)))
        regions, labels = cv2.connectedComponents(bright)
        cut += regions - 2
        for region in range(1, regions):
            inside = labels == region
            learnt = sample["shrink_map"][inside].any()
            assert learnt == (inside.sum() > 0.9 * 98 * 198)
            assert sample["shrink_mask"][inside].any() == learnt
    assert cut > 5


def test_a_label_beyond_the_page_is_not_a_cut_text() -> None:
    page = _page([_box(-20, 100, 140, 30)], width=320, height=256)
    transform = DetectionTransform(geometry=GEOMETRY, augmentation=DetectionAugmentation.none())
    sample = transform(page, np.random.default_rng(0))
    assert sample["shrink_map"].any()
    assert sample["shrink_mask"].all()


def test_copies_are_learnt_and_cover_nothing() -> None:
    page = _page([_box(250, 190, 100, 24)])
    plain = replace(DetectionAugmentation.none(), zoom=(0.5, 0.5))
    pasting = replace(plain, paste_share=1.0)
    grew = 0
    for seed in range(10):
        alone = DetectionTransform(geometry=GEOMETRY, augmentation=plain)(page, np.random.default_rng(seed))
        more = DetectionTransform(geometry=GEOMETRY, augmentation=pasting)(page, np.random.default_rng(seed))
        assert (more["shrink_map"][alone["shrink_map"] == 1] == 1).all()
        grew += int(more["shrink_map"].sum() > 1.5 * alone["shrink_map"].sum())
        assert (more["image"][more["shrink_map"] == 1] > 200).mean() > 0.98
    assert grew >= 8


def test_a_text_without_a_free_place_is_not_pasted() -> None:
    canvas = np.zeros((*CANVAS, 3), np.uint8)
    everywhere = [_box(0, 0, 320, 256)]
    text, picture = _box(0, 0, 50, 20), np.full((100, 100, 3), 255, np.uint8)
    kwargs = {"picture": picture, "zoom": 1.0, "degrees": 10.0, "most": 3}
    assert paste(canvas, everywhere, [text], np.random.default_rng(0), **kwargs) == []
    assert paste(canvas, [], [_box(0, 0, 500, 20)], np.random.default_rng(0), **kwargs) == []
    assert not canvas.any()
    assert len(paste(canvas, [], [text], np.random.default_rng(0), **kwargs)) == 1
    assert canvas.any()


def test_points_go_where_pixels_go() -> None:
    """A bright square drawn through any view has its centre where the view says."""
    rng = np.random.default_rng(3)
    picture = np.zeros((200, 300, 3), np.uint8)
    picture[80:100, 120:150] = 255
    for reduced in (1, 2):
        source = picture if reduced == 1 else cv2.resize(picture, (150, 100), interpolation=cv2.INTER_AREA)
        for _ in range(20):
            view = rotate(flip(View.of_page(width=300, height=200), rng, across=0.5, down=0.5), rng, degrees=180)
            window = choose_window(view, [view.points(_box(120, 80, 30, 20))], rng, canvas=CANVAS, zoom=(0.7, 2.0))
            seen = through(view, window, rng, canvas=CANVAS)
            drawn = draw(source, seen, reduced=reduced)[..., 0].astype(float)
            ys, xs = np.mgrid[: CANVAS[0], : CANVAS[1]] + 0.5
            centre = np.array([(xs * drawn).sum(), (ys * drawn).sum()]) / drawn.sum()
            assert np.allclose(centre, seen.points(np.array([[135.0, 90.0]]))[0], atol=0.2)


def test_the_ratio_grows_over_the_training() -> None:
    transform, page = DetectionTransform(geometry=GEOMETRY), _page(GRID)
    early, late = (transform(page, np.random.default_rng(0), progress=progress) for progress in (0.0, 1.0))
    assert late["shrink_map"].sum() > 1.1 * early["shrink_map"].sum()
    assert np.array_equal(early["image"], late["image"])


def test_fine_tuning_starts_where_the_weights_are() -> None:
    """PP-OCRv3 and later end at a ratio of 0.6, and go on there; everything else starts at 0.4 and ends there."""
    cases = {
        ("PP-OCRv5_mobile_det", True): (0.6, 0.0),
        ("PP-OCRv5_mobile_det", False): (0.4, 0.2),
        ("DB_mv3", True): (0.4, 0.2),
        ("DB_mv3", False): (0.4, 0.2),
    }
    for (name, pretrained), (first, growth) in cases.items():
        transform = DetectionTransform.for_model(name, geometry=GEOMETRY, pretrained=pretrained)
        assert transform.targets.shrink_ratio == pytest.approx(first)
        assert transform.shrink_growth == pytest.approx(growth)


def test_what_is_wrong_is_named() -> None:
    transform, rng = DetectionTransform(geometry=GEOMETRY), np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"train\.txt:7: is a line of text"):
        transform(replace(_page([]), polygons=None), rng)
    with pytest.raises(PictureError, match=r"train\.txt:7: can't be decoded"):
        transform(replace(_page([]), image=b"no picture"), rng)
    with pytest.raises(ValueError, match="zoom must be"):
        DetectionAugmentation(zoom=(2.0, 1.0))
    with pytest.raises(ValueError, match="flip_across"):
        DetectionAugmentation(flip_across=1.5)
