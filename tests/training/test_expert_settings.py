"""What `training.config` says is what training does: seen in the losses of real trainings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from training_rig import Job, Zygote

from ocr_finetune_api.workspace import Workspace
from ocr_finetune_trainer.data.pictures import encode
from ocr_finetune_trainer.data.store import SHARD_INDEX, ViewRow, write_shard, write_view

MakeJob = Callable[..., Job]
TRANSFORMS = "Train.dataset.transforms"


def losses(zygote: Zygote, job: Job) -> list[float]:
    """The loss of each step."""
    started = zygote.start(job)
    assert started.wait() == [0], started.text
    for key in job.training["config"]:
        assert f"training.config: {key}" in started.text
    return list(job.losses().values())


def test_the_settings_of_readers(zygote: Zygote, make_job: MakeJob) -> None:
    def train(config: dict[str, Any], **training: Any) -> list[float]:
        return losses(zygote, make_job(epochs=1, config=config, **training))

    plain = train({})
    assert train({"Loss.use_focal_loss": False}) == plain
    assert train({"Loss.use_focal_loss": True})[-1] != plain[-1]
    moments = train({"Optimizer.beta1": 0.1})
    assert (moments[0], moments[-1] != plain[-1]) == (plain[0], True)
    often = [train({f"{TRANSFORMS}.RecAug.noise_prob": chance}, augmentation="auto")[0] for chance in (0, 1)]
    assert often[0] != often[1]


def _write_pages(workspace: Workspace, name: str) -> None:
    cache = workspace.cache / "shards"
    pictures, index = [], []
    nothing = {
        field.name: "" if field.type == "string" else b"" if field.type == "binary" else 0 for field in SHARD_INDEX
    }
    for number in range(4):
        page = np.full((96, 96, 3), 240, np.uint8)
        cv2.rectangle(page, (10, 30 + number), (80, 60 + number), (20, 20, 20), -1)
        corners = [10, 30 + number, 80, 30 + number, 80, 60 + number, 10, 60 + number]
        pictures.append(
            {"image": encode(page, lossless=True), "points": [corners], "texts": ["bar"], "ignored": [False]}
        )
        index.append({**nothing, "width": 96, "height": 96, "boxes": 1})
    shard = write_shard(cache, f"pages-{name}", pictures=pictures, index=index, about={})
    rows = (
        ViewRow(shard=0, row=i, text="", width=96, height=96, source=0, group="", origin=f"{name}:{i}", digest=i)
        for i in range(4)
    )
    write_view(workspace.data / name, cache=cache, shards=[shard], sources=["pages"], rows=rows)


def test_the_settings_of_detectors(zygote: Zygote, make_job: MakeJob) -> None:
    def train(config: dict[str, Any]) -> float:
        job = make_job(epochs=1, batchSize=4, config=config, model={"name": "DB_mv3"})
        for name in ("train", "validation"):
            _write_pages(job.workspace, name)
        return losses(zygote, job)[0]

    plain = train({})
    assert train({"Loss.alpha": 5}) == plain
    # what is left is the binary map's Dice loss, which is 1 at most
    assert train({"Loss.alpha": 0, "Loss.beta": 0}) <= 1.0 < plain
    for key, value in {
        "Architecture.Head.k": 5,
        f"{TRANSFORMS}.EastRandomCropData.size": [64, 96],
        f"{TRANSFORMS}.MakeShrinkMap.shrink_ratio": 0.8,
    }.items():
        assert train({key: value}) != pytest.approx(plain, rel=1e-4), key
