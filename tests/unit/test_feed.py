"""What training asks of its data: the right augmentation, and how far training is."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from test_data_store import row, shard_of, view

from ocr_finetune_api.spec import OCRFineTuneSpec
from ocr_finetune_trainer.data.order import Order
from ocr_finetune_trainer.dictionary import Dictionary
from ocr_finetune_trainer.geometry import recognition_geometry
from ocr_finetune_trainer.training.feed import DataFeed, make_transform


def spec_of(model: str, **training: object) -> OCRFineTuneSpec:
    values = {
        "model": {"name": model, "pretrained": "none"},
        "dataset": {"train": [{"uri": "x"}]},
        "training": training,
    }
    return OCRFineTuneSpec.model_validate(values)


@pytest.mark.parametrize(("model", "stride"), [("PP-OCRv5_mobile_rec", 8), ("CRNN_r34_vd", 4)])
def test_lines_are_lengthened_as_far_as_the_model_reads(model: str, stride: int) -> None:
    transform = make_transform(
        spec_of(model), geometry=recognition_geometry(model), dictionary=Dictionary(("a",)), guided=False, longest=40
    )
    assert (transform.augment.longest, transform.augment.stride, transform.stride) == (40, stride, stride)


def test_no_augmentation_is_none() -> None:
    spec = spec_of("PP-OCRv5_mobile_rec", augmentation="none")
    geometry = recognition_geometry("PP-OCRv5_mobile_rec")
    assert make_transform(spec, geometry=geometry, dictionary=Dictionary(("a",)), guided=False).augment is None


class Grows:
    """A transform whose targets change over the training."""

    def __call__(self, _sample: object, _rng: object, *, progress: float = 0.0) -> dict[str, np.ndarray]:
        return {"progress": np.array(progress)}


def test_transforms_are_told_how_far_the_whole_training_is(tmp_path):
    shard = shard_of(tmp_path / ".cache/shards", "s", [bytes([i]) for i in range(6)])
    dataset = view(tmp_path, [row(0, i) for i in range(6)], [shard])
    order = Order(6, batch_size=2, seed=0)
    feed = DataFeed(dataset, order, Grows(), rank=0, world=1, workers=0, seed=0, steps=12)
    with feed.open(5) as batches:
        told = [float(batch["progress"][0]) for batch in islice(batches, 4)]
    assert told == [5 / 12, 6 / 12, 7 / 12, 8 / 12]
