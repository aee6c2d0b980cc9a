"""A detection run as prepare and train leave it, made in seconds: pages with dark bars, a few steps of training."""

from __future__ import annotations

import functools
from pathlib import Path

import cv2
import numpy as np
from trained_run import context_for, shard_rows

from ocr_finetune_api import results
from ocr_finetune_api.plan import Stage
from ocr_finetune_api.results import StageResult
from ocr_finetune_api.workspace import Workspace
from ocr_finetune_trainer.data.pictures import encode
from ocr_finetune_trainer.data.store import ViewRow, write_shard, write_view

MODEL = "PP-OCRv3_mobile_det"

Page = tuple[np.ndarray, list[np.ndarray], list[str]]


def pages(count: int, *, seed: int = 0, size: int = 160) -> list[Page]:
    """White pages with dark bars of letters, one text a bar."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        image = np.full((size, size, 3), 245, np.uint8)
        polygons, texts = [], []
        for row in range(3):
            left, top = int(rng.integers(5, 40)), 10 + row * 48 + int(rng.integers(0, 8))
            text = "".join(rng.choice(list("HMNWEB8"), int(rng.integers(3, 6))))
            (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.9, 3)
            cv2.putText(image, text, (left, top + height), cv2.FONT_HERSHEY_SIMPLEX, 0.9, (20, 20, 20), 3)
            box = [[left, top - 3], [left + width, top - 3], [left + width, top + height + 3], [left, top + height + 3]]
            polygons.append(np.array(box, np.float32).clip(0, size - 1))
            texts.append(text)
        made.append((image, polygons, texts))
    return made


def write_pages(workspace: Workspace, name: str, samples: list[Page]) -> None:
    """Writes a prepared set of pages."""
    cache = workspace.cache / "shards"
    cache.mkdir(parents=True, exist_ok=True)
    pictures, index = shard_rows(
        [
            {
                "image": encode(image, lossless=True),
                "points": [polygon.ravel().tolist() for polygon in polygons],
                "texts": texts,
                "ignored": [False] * len(polygons),
            }
            for image, polygons, texts in samples
        ],
        [{"width": image.shape[1], "height": image.shape[0], "boxes": len(polygons)} for image, polygons, _ in samples],
    )
    shard = write_shard(cache, f"{workspace.run}-{name}", pictures=pictures, index=index, about={})
    rows = (
        ViewRow(shard=0, row=i, text="", width=image.shape[1], height=image.shape[0], source=0, group="",
                origin=f"{name}.txt:{i + 1}", digest=i)
        for i, (image, _, _) in enumerate(samples)
    )  # fmt: skip
    write_view(workspace.data / name, cache=cache, shards=[shard], sources=["bars"], rows=rows)


def detection_spec(**changes: dict) -> dict:
    """A spec as a manifest has it."""
    spec = {
        "model": {"name": MODEL, "pretrained": "none"},
        "dataset": {"train": [{"uri": "pages"}], "test": {"fraction": 0.1}},
    }
    return spec | changes


def fit_detector(samples: list[Page], *, steps: int, batch_size: int = 2) -> dict[str, np.ndarray]:
    """Trains the detector; gives its weights by structured name."""
    import paddle

    from ocr_finetune_trainer import losses, models
    from ocr_finetune_trainer.data.db_targets import db_targets
    from ocr_finetune_trainer.geometry import detection_geometry

    paddle.seed(0)
    geometry = detection_geometry(MODEL)
    model = models.build(MODEL)
    loss = losses.build(MODEL)
    # A rate that goes down to nothing: where it ends must not depend on how this machine's CPU rounds.
    rate = paddle.optimizer.lr.CosineAnnealingDecay(3e-3, steps)
    optimizer = paddle.optimizer.Adam(rate, parameters=model.parameters())
    rng = np.random.default_rng(0)
    for _ in range(steps):
        chosen = [samples[i] for i in rng.choice(len(samples), batch_size)]
        x = paddle.to_tensor(np.stack([geometry.normalization(image) for image, _, _ in chosen]))
        targets = [
            db_targets(polygons, [False] * len(polygons), height=image.shape[0], width=image.shape[1])
            for image, polygons, _ in chosen
        ]
        batch = {
            name: paddle.to_tensor(np.stack([target[name] for target in targets]).astype(np.float32))
            for name in targets[0]
        }
        loss(models.train_forward(model, x, batch), batch)["loss"].backward()
        optimizer.step()
        optimizer.clear_grad()
        rate.step()
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


@functools.cache
def trained_detector_weights(steps: int) -> dict[str, np.ndarray]:
    """Weights of a detector that has seen 40 pages; several test modules share them."""
    return fit_detector(pages(40), steps=steps)


def make_detection_run(root: Path, *, steps: int = 100, name: str = "bars") -> Workspace:
    """Leaves what prepare and train leave: sets and one checkpoint."""
    from ocr_finetune_trainer.training import checkpoint

    workspace = context_for(root, Stage.EVALUATE, spec=detection_spec(), name=name).workspace
    workspace.data.mkdir(parents=True, exist_ok=True)
    write_pages(workspace, "train", pages(40))
    write_pages(workspace, "validation", pages(4, seed=1))
    write_pages(workspace, "test", pages(12, seed=2))
    results.write(
        StageResult(stage=Stage.PREPARE, input_hash="x", details={"optimistic": False}),
        workspace.result(Stage.PREPARE),
    )
    manifest = checkpoint.Manifest(step=steps, metric_name="hmean", metric=0.5)
    checkpoint.save(workspace.checkpoints, manifest, {"model": trained_detector_weights(steps)})
    return workspace
