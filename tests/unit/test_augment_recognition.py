"""Augmentation changes pictures within bounds, the same for the same numbers, and never what they say by accident."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import cv2
import numpy as np
import pytest

import good_data
from ocr_finetune_trainer.data.augment import recognition as augment
from ocr_finetune_trainer.data.augment.recognition import OPERATIONS, RecognitionAugmentation, Warp
from ocr_finetune_trainer.data.order import generator

LINE = good_data.picture(1, height=48, width=320, text="Hello World")


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("size", [(48, 320), (32, 32), (48, 9), (48, 3200)])
def test_operations_keep_the_shape_and_leave_their_input_alone(name, size):
    picture = good_data.picture(2, height=size[0], width=size[1], text="ab")
    before = picture.copy()
    changed = OPERATIONS[name](picture, generator(0, 0, 1))
    assert (changed.shape, changed.dtype) == (picture.shape, np.uint8)
    assert np.array_equal(picture, before)
    assert not np.array_equal(changed, before)
    assert np.array_equal(OPERATIONS[name](picture, generator(0, 0, 1)), changed)


def test_a_warp_of_nothing_changes_nothing():
    assert np.array_equal(augment.warp(LINE, Warp.none(5)), LINE)


def test_a_warp_moves_what_it_says():
    shifts = Warp.none(4)
    shifts.top[0] += 10
    shifts.bottom[0] += 10
    assert np.array_equal(augment.warp(LINE, shifts)[:, :300], LINE[:, 10:310])


def test_bending_never_folds_a_line_over():
    for index in range(300):
        rng = generator(0, 0, index)
        shifts = RecognitionAugmentation()._shifts(LINE, rng)
        nodes = np.linspace(0, 320, shifts.top.shape[1])
        for edge in (shifts.top, shifts.bottom):
            assert (np.diff(nodes + edge[0]) > 0).all()


def test_everything_is_decided_by_the_generator():
    aug = RecognitionAugmentation()
    results = [aug(LINE, generator(3, 1, 5), text="x", width=320, other=None)[0] for _ in range(2)]
    assert np.array_equal(*results)
    others = [aug(LINE, generator(3, epoch, 5), text="x", width=320, other=None)[0] for epoch in range(20)]
    assert len({other.tobytes() for other in others}) > 15


def test_frequencies_are_those_asked_for():
    aug = RecognitionAugmentation(warp=0, crop=0, blur=0, colour=0, jitter=0, noise=0, concatenate=0, reverse=0.4)
    reversed_ = [
        np.array_equal(aug(LINE, generator(0, 0, index), text="x", width=320, other=None)[0], 255 - LINE)
        for index in range(1000)
    ]
    assert 350 < sum(reversed_) < 450


def test_lines_are_joined_only_where_there_is_room():
    short = good_data.picture(3, height=48, width=90, text="ab")

    def other(_rng):
        return short, "cd"

    aug = RecognitionAugmentation(concatenate=1.0, warp=0, crop=0, blur=0, colour=0, jitter=0, noise=0, reverse=0)
    joined, text = aug(short, generator(0, 0, 0), text="ab", width=320, other=other)
    assert (joined.shape, text) == ((48, 270, 3), "abcdcd")
    assert np.array_equal(joined[:, 90:180], short)
    assert aug(short, generator(0, 0, 0), text="ab", width=200, other=other)[1] == "abcd"
    assert aug(short, generator(0, 0, 0), text="ab", width=100, other=other)[1] == "ab"
    limited = RecognitionAugmentation(concatenate=1.0, longest=5)
    assert limited(short, generator(0, 0, 0), text="ab", width=3200, other=other)[1] == "abcd"


def test_a_longer_line_still_has_a_frame_for_each_character():
    """Nineteen equal characters need 37 frames, both lines together 76, of 8 columns each."""
    aug = RecognitionAugmentation(concatenate=1.0, longest=100)
    narrow = np.full((48, 60, 3), 200, dtype=np.uint8)

    def other(_):
        return narrow, "o" * 20

    for width, expected in ((320, "n" * 19), (76 * 8 - 1, "n" * 19), (76 * 8, "n" * 19 + "o" * 20)):
        text = aug(narrow, generator(0, 0, 0), text="n" * 19, width=width, other=other)[1]
        assert text == expected, width


def test_the_smallest_model_gets_gentle_changes():
    gentle = augment.suited("MobileNetV3_small_ctc")
    assert (gentle.reverse, gentle.concatenate) == (0.0, 0.0)
    assert augment.suited("PP-OCRv5_mobile_rec", longest=40).longest == 40


def test_the_pictures_of_the_documentation_are_current():
    folder = Path(__file__).parents[2] / "docs/pictures/augmentation"
    spec = importlib.util.spec_from_file_location("draw", folder / "draw.py")
    drawing = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(drawing)
    assert {path.stem for path in folder.glob("*.jpg")} == set(drawing.operations()) >= set(OPERATIONS)
    for name in drawing.operations():
        shown = cv2.imread(str(folder / f"{name}.jpg"))
        _, content = cv2.imencode(".jpg", drawing.draw(name), [cv2.IMWRITE_JPEG_QUALITY, 88])
        drawn = cv2.imdecode(content, cv2.IMREAD_COLOR).astype(int)
        assert np.abs(shown - drawn).mean() < 1, f"{name}: run docs/pictures/augmentation/draw.py"
