"""What training asks of its data: the right augmentation, and how far training is."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from prometheus_client import CollectorRegistry
from test_data_store import row, shard_of, view

from ocr_finetune_api.spec import OCRFineTuneSpec
from ocr_finetune_trainer.data.order import Order
from ocr_finetune_trainer.dictionary import Dictionary
from ocr_finetune_trainer.geometry import recognition_geometry
from ocr_finetune_trainer.telemetry.training_metrics import TrainingMetrics
from ocr_finetune_trainer.training.checkpoint import Progress
from ocr_finetune_trainer.training.feed import DataFeed, make_order, make_transform
from ocr_finetune_trainer.training.pulse import Pulse
from ocr_finetune_trainer.training.recorder import Recorder


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


def test_the_share_of_each_source_can_be_seen(tmp_path):
    """Twelve samples of one's own, and as many of 30 general ones: half of what is trained, as the manifest says."""
    shard = shard_of(tmp_path / ".cache/shards", "s", [bytes([i]) for i in range(42)])
    rows = [row(0, i, source=int(i >= 12), width=100, height=48) for i in range(42)]
    dataset = view(tmp_path, rows, [shard], sources=("own", "general"))
    train = [{"name": name, "uri": name, "weight": 1} for name in ("own", "general")]
    values = {"model": {"name": "PP-OCRv5_mobile_rec", "pretrained": "none"}, "dataset": {"train": train}}
    spec = OCRFineTuneSpec.model_validate(values)
    order = make_order(dataset, spec, geometry=recognition_geometry("PP-OCRv5_mobile_rec"), batch_size=4)
    steps = 3 * order.steps_per_epoch
    registry = CollectorRegistry()
    recorder = Recorder(
        pulse=Pulse(tmp_path / "pulse", rank=0), metrics=TrainingMetrics(registry, rank=0), steps=steps,
        steps_per_epoch=order.steps_per_epoch, metric_name="accuracy", sources=dataset.source_names,
    )  # fmt: skip
    feed = DataFeed(dataset, order, Grows(), rank=0, world=1, workers=0, seed=0, steps=steps)
    progress = Progress(steps=steps, steps_per_epoch=order.steps_per_epoch)
    with feed.open(0) as batches:
        for batch in islice(batches, steps):
            progress = progress.model_copy(update={"step": progress.step + 1})
            recorder.stepped(batch=batch, total=len(batch["index"]), rate=0.1, progress=progress)
    seen = {
        name: registry.get_sample_value("ocrft_train_source_samples_total", {"rank": "0", "source": name})
        for name in ("own", "general")
    }
    assert seen == {"own": 36.0, "general": 36.0}
