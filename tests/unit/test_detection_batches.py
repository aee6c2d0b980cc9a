"""Pages go from their labels through prepare and the loader to the maps that a detector learns."""

from __future__ import annotations

from itertools import islice

import numpy as np
from test_prepare import PAGES, config_of, run, sets

import good_data
from ocr_finetune_trainer.data.detection_samples import DetectionTransform
from ocr_finetune_trainer.data.loader import Loader
from ocr_finetune_trainer.data.order import Order
from ocr_finetune_trainer.geometry import detection_geometry


def test_batches_of_pages(tmp_path):
    good_data.pages(tmp_path / "data", count=12)
    workspace, _ = run(tmp_path, config_of(tmp_path / "data", model=PAGES))
    data = sets(workspace)["train"]
    transform = DetectionTransform(geometry=detection_geometry(PAGES))
    order = Order(len(data), batch_size=4, seed=0)
    alone = list(islice(Loader(data, order, transform, total_steps=6), 3))
    with Loader(data, order, transform, workers=1, total_steps=6) as loader:
        for ours, theirs in zip(alone, islice(loader, 3), strict=True):
            assert ours.keys() == theirs.keys()
            for name, array in ours.items():
                assert np.array_equal(array, theirs[name]), name
    for batch in alone:
        count = len(batch["index"])
        assert batch["image"].shape == (count, 640, 640, 3)
        assert batch["image"].dtype == np.uint8
        maps = [batch[name] for name in ("shrink_map", "shrink_mask", "threshold_map", "threshold_mask")]
        assert all(array.shape == (count, 640, 640) for array in maps)
        assert maps[0].any(), "there is something to find"
