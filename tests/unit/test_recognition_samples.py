"""Batches hold what serving would show the model, labels that CTC can align, and say where padding begins."""

from __future__ import annotations

import numpy as np
import pytest
from test_data_store import row, shard_of, view

from ocr_finetune_api.exit_codes import DataError
from ocr_finetune_trainer.data.augment.recognition import RecognitionAugmentation
from ocr_finetune_trainer.data.order import generator
from ocr_finetune_trainer.data.pictures import decode, encode
from ocr_finetune_trainer.data.recognition_samples import RecognitionTransform, frame_stride, limits_of, width_buckets
from ocr_finetune_trainer.dictionary import Dictionary
from ocr_finetune_trainer.geometry import recognition_geometry

GEOMETRY = recognition_geometry("PP-OCRv5_mobile_rec")
LETTERS = Dictionary(tuple("abcdefgh"), use_space=True)


@pytest.fixture
def dataset(tmp_path):
    rng = np.random.default_rng(0)
    sizes = [(48, 100), (24, 40), (48, 700), (96, 64)]
    texts = ["abc", "h", "abcdefgh", "a" * 30]
    contents = [encode(rng.integers(0, 255, (*size, 3), dtype=np.uint8), lossless=True) for size in sizes]
    shard = shard_of(tmp_path / ".cache/shards", "s", contents)
    rows = [
        row(0, number, text=text, width=size[1], height=size[0])
        for number, (size, text) in enumerate(zip(sizes, texts, strict=True))
    ]
    return view(tmp_path, rows, [shard])


def batch_of(transform, dataset, indices):
    samples = ((dataset[i], generator(0, 0, i)) for i in indices)
    return transform.batch(samples, dataset=dataset, everyone=np.asarray(indices))


def test_pictures_are_those_of_serving(dataset):
    transform = RecognitionTransform(GEOMETRY, LETTERS, guide="nrtr")
    batch = batch_of(transform, dataset, [0, 1])
    assert batch["image"].shape == (2, 48, 320, 3)
    assert batch["valid_width"].tolist() == [100, 80]
    for place in (0, 1):
        expected = GEOMETRY.resize(decode(dataset.image(place)))
        assert np.array_equal(batch["image"][place, :, : batch["valid_width"][place]], expected)
        assert not batch["image"][place, :, batch["valid_width"][place] :].any()
    assert batch["label_ctc"].tolist() == [[1, 2, 3], [8, 0, 0]]
    assert batch["length"].tolist() == [3, 1]
    assert batch["label_gtc"].tolist() == [[2, 4, 5, 6, 3], [2, 11, 3, 0, 0]]
    assert "label_gtc" not in batch_of(RecognitionTransform(GEOMETRY, LETTERS), dataset, [0])


def test_the_width_is_that_of_all_ranks(dataset):
    transform = RecognitionTransform(GEOMETRY, LETTERS)
    samples = ((dataset[i], generator(0, 0, i)) for i in [0])
    batch = transform.batch(samples, dataset=dataset, everyone=np.array([0, 2]))
    assert batch["image"].shape == (1, 48, 960, 3)
    empty = transform.batch(iter(()), dataset=dataset, everyone=np.array([0, 2]))
    assert empty["image"].shape == (0, 48, 960, 3)


def test_a_long_label_on_a_narrow_picture_gets_frames_enough(dataset):
    assert width_buckets(dataset, geometry=GEOMETRY).tolist() == [320, 320, 960, 480]
    batch = batch_of(RecognitionTransform(GEOMETRY, LETTERS), dataset, [3])
    # Thirty equal letters need 59 frames of 8 columns.
    assert batch["image"].shape[2] == 480
    assert batch["valid_width"].tolist() == [32]


def test_augmented_batches_keep_their_shape_and_can_be_made_again(dataset):
    transform = RecognitionTransform(GEOMETRY, LETTERS, RecognitionAugmentation(concatenate=1.0))
    first, second = (batch_of(transform, dataset, [0, 1, 2, 3]) for _ in range(2))
    assert first["image"].shape == (4, 48, 960, 3)
    assert all(np.array_equal(first[name], second[name]) for name in first)
    frames = first["image"].shape[2] // 8
    for place, length in enumerate(first["length"]):
        classes = first["label_ctc"][place, :length]
        assert length + int((classes[1:] == classes[:-1]).sum()) <= frames


def test_unknown_characters_are_never_dropped_in_silence(dataset):
    with pytest.raises(DataError, match="lacks 'c'"):
        batch_of(RecognitionTransform(GEOMETRY, Dictionary(tuple("ab"))), dataset, [0])


def test_crnn_keeps_more_frames():
    assert (frame_stride("CRNN_r34_vd"), frame_stride("PP-OCRv5_mobile_rec")) == (4, 8)
    assert limits_of("PP-OCRv5_mobile_rec").frames == 400
