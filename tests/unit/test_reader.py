"""From crops to texts, in any order and any batch."""

from __future__ import annotations

import numpy as np
import pytest

from ocr_finetune_trainer.dictionary import Dictionary
from ocr_finetune_trainer.evaluation.reader import Padding, Reading, Recogniser, collapse
from ocr_finetune_trainer.geometry import RecognitionGeometry

DICTIONARY = Dictionary(("a", "b", "c"), use_space=True)
GEOMETRY = RecognitionGeometry(height=32, min_width=64, buckets=(64, 128, 256), max_width=256)


class Brightness:
    """A network whose frames say how bright 16 columns of the input are; padding is 0."""

    def __init__(self):
        self.batches = []

    def run(self, x):
        raise NotImplementedError

    def best(self, x):
        self.batches.append(x.shape)
        columns = x[:, 0].mean(axis=1).reshape(len(x), -1, 16).mean(axis=2)
        return np.digitize(columns, (-0.9, 0.1, 0.5)).astype(np.int64), np.full(columns.shape, 0.5, np.float32)


def crop(width, value):
    return np.full((32, width, 3), value, np.uint8)


def test_a_text_does_not_depend_on_the_pictures_beside_it():
    rng = np.random.default_rng(0)
    crops = [rng.integers(0, 255, (int(h), int(w), 3)).astype(np.uint8) for h, w in rng.integers(8, 90, (40, 2))]
    alone = [Recogniser(Brightness(), geometry=GEOMETRY, dictionary=DICTIONARY).read([c])[0] for c in crops]

    for batch_size in (1, 7, 64):
        reader = Recogniser(Brightness(), geometry=GEOMETRY, dictionary=DICTIONARY, batch_size=batch_size)
        assert reader.read(crops) == alone
        assert reader.read(crops[::-1]) == alone[::-1]


def test_wide_crops_go_in_batches_of_as_many_pixels():
    network = Brightness()
    Recogniser(network, geometry=GEOMETRY, dictionary=DICTIONARY, batch_size=8).read(
        [crop(250, 9)] * 5 + [crop(30, 9)] * 5
    )

    assert network.batches == [(5, 3, 32, 64), (2, 3, 32, 256), (2, 3, 32, 256), (1, 3, 32, 256)]


def test_serving_pads_to_the_pixel_and_training_to_its_buckets():
    widths = {}
    for padding in Padding:
        reader = Recogniser(Brightness(), geometry=GEOMETRY, dictionary=DICTIONARY, padding=padding)
        widths[padding] = [reader.width(height=32, width=w) for w in (10, 64, 70, 200, 900)]

    assert widths == {Padding.SERVING: [64, 64, 70, 200, 256], Padding.BUCKET: [64, 64, 128, 256, 256]}


def test_repetitions_collapse_and_blanks_part_them():
    row = np.array([0, 1, 1, 0, 1, 2, 2, 0])

    assert collapse(row).tolist() == [False, True, False, False, True, True, False, False]


def test_the_score_is_the_mean_over_characters_and_0_without_any():
    reader = Recogniser(Brightness(), geometry=GEOMETRY, dictionary=DICTIONARY)

    assert reader.read([crop(64, 250)]) == [Reading("c", 0.5)]
    assert reader.read([crop(64, 0)]) == [Reading("", 0.0)]


def test_no_crops_no_readings():
    assert Recogniser(Brightness(), geometry=GEOMETRY, dictionary=DICTIONARY).read([]) == []


def test_a_picture_that_is_none_is_refused():
    with pytest.raises(ValueError, match="picture must be uint8"):
        Recogniser(Brightness(), geometry=GEOMETRY, dictionary=DICTIONARY).read([np.zeros((32, 32, 3), np.float32)])
