"""A run as prepare and train leave it, made in seconds: real handwriting, the smallest model, a few steps of training."""

from __future__ import annotations

import functools
from pathlib import Path

import cv2
import numpy as np

from ocr_finetune_api import results
from ocr_finetune_api.plan import Stage, plan
from ocr_finetune_api.results import StageResult
from ocr_finetune_api.run_config import RunConfig
from ocr_finetune_api.workspace import Workspace, run_folder
from ocr_finetune_trainer.data import store
from ocr_finetune_trainer.data.pictures import encode
from ocr_finetune_trainer.data.store import ViewRow, write_shard, write_view
from ocr_finetune_trainer.dictionary import Dictionary
from ocr_finetune_trainer.stages.context import StageContext
from ocr_finetune_trainer.telemetry.reporter import Reporter

MODEL = "MobileNetV3_small_ctc"
DICTIONARY = Dictionary(tuple("0123456789"), use_space=False)


def digits(count: int, *, start: int = 0) -> list[tuple[np.ndarray, str]]:
    """Handwritten digits as dark strokes on white, uint8 (32, 32, 3)."""
    from sklearn.datasets import load_digits

    data = load_digits()
    pictures = []
    for image, label in zip(data.images[start : start + count], data.target[start : start + count], strict=True):
        grey = (255 - image * 15.9).clip(0, 255).astype(np.uint8)
        grown = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_CUBIC)
        pictures.append((np.repeat(grown[:, :, None], 3, axis=2), str(label)))
    return pictures


def shard_rows(pictures: list[dict], index: list[dict]) -> tuple[list[dict], list[dict]]:
    """Rows of a shard with every column that the store has; what a test does not say is empty."""
    empty = {field.name: None for field in store._PICTURES}
    nothing = {"string": "", "binary": b""}
    blank = {field.name: nothing.get(str(field.type), 0) for field in store.SHARD_INDEX}
    return [empty | row for row in pictures], [blank | row for row in index]


def write_set(
    workspace: Workspace, name: str, samples: list[tuple[np.ndarray, str]], *, source: str = "digits"
) -> None:
    """Writes a prepared set of lines."""
    cache = workspace.cache / "shards"
    cache.mkdir(parents=True, exist_ok=True)
    pictures, index = shard_rows(
        [{"image": encode(image, lossless=True)} for image, _ in samples],
        [{"text": text, "width": image.shape[1], "height": image.shape[0], "boxes": -1} for image, text in samples],
    )
    shard = write_shard(cache, f"{workspace.run}-{name}", pictures=pictures, index=index, about={})
    rows = (
        ViewRow(shard=0, row=i, text=text, width=image.shape[1], height=image.shape[0], source=0, group="",
                origin=f"{name}.txt:{i + 1}", digest=i)
        for i, (image, text) in enumerate(samples)
    )  # fmt: skip
    write_view(workspace.data / name, cache=cache, shards=[shard], sources=[source], rows=rows)


def spec_of(**changes: dict) -> dict:
    """A spec as a manifest has it."""
    spec = {
        "model": {"name": MODEL, "pretrained": "none"},
        "dataset": {"train": [{"uri": "digits"}], "test": {"fraction": 0.1}},
    }
    return spec | changes


def context_for(root: Path, stage: Stage, *, spec: dict | None = None, name: str = "digits") -> StageContext:
    """What a stage is given."""
    config = RunConfig.model_validate({"run": {"name": name, "uid": "12345678"}, "spec": spec or spec_of()})
    return StageContext(
        config=config,
        workspace=Workspace(root, run_folder(name, "12345678")),
        planned=plan(config.spec)[stage],
        reporter=Reporter.for_stage(stage, folder=root / "telemetry"),
    )


def fit(samples: list[tuple[np.ndarray, str]], *, steps: int) -> dict[str, np.ndarray]:
    """Trains the smallest model; gives its weights by structured name."""
    import paddle

    from ocr_finetune_trainer import losses, models
    from ocr_finetune_trainer.dictionary import targets
    from ocr_finetune_trainer.geometry import recognition_geometry

    paddle.seed(0)
    geometry = recognition_geometry(MODEL)
    model = models.build(MODEL, characters=DICTIONARY.size, guided=False)
    loss = losses.build(MODEL, guided=False)
    # A rate that goes down to nothing: where it ends must not depend on how this machine's CPU rounds.
    rate = paddle.optimizer.lr.CosineAnnealingDecay(3e-3, steps)
    optimizer = paddle.optimizer.Adam(rate, parameters=model.parameters())
    rng = np.random.default_rng(0)
    for _ in range(steps):
        chosen = [samples[i] for i in rng.choice(len(samples), 16)]
        x = paddle.to_tensor(geometry.batch([image for image, _ in chosen]))
        arrays = targets([DICTIONARY.encode(text) for _, text in chosen], guide="", size=DICTIONARY.size)
        batch = {key: paddle.to_tensor(value) for key, value in arrays.items()}
        loss(models.train_forward(model, x, batch), batch)["loss"].backward()
        optimizer.step()
        optimizer.clear_grad()
        rate.step()
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


@functools.cache
def trained_weights(steps: int) -> dict[str, np.ndarray]:
    """Weights of a model that has seen 600 digits; several test modules share them."""
    return fit(digits(600), steps=steps)


def make_run(root: Path, *, steps: int = 200, name: str = "digits") -> Workspace:
    """Leaves what prepare and train leave: sets, dictionary, one checkpoint."""
    from ocr_finetune_trainer.training import checkpoint

    workspace = context_for(root, Stage.EVALUATE, name=name).workspace
    workspace.data.mkdir(parents=True, exist_ok=True)
    train, test = digits(600), digits(120, start=1000)
    write_set(workspace, "train", train)
    write_set(workspace, "validation", digits(60, start=800))
    write_set(workspace, "test", test)
    DICTIONARY.save(workspace.dictionary)
    results.write(
        StageResult(stage=Stage.PREPARE, input_hash="x", details={"optimistic": False}),
        workspace.result(Stage.PREPARE),
    )
    manifest = checkpoint.Manifest(step=steps, metric_name="accuracy", metric=0.5)
    checkpoint.save(workspace.checkpoints, manifest, {"model": trained_weights(steps)})
    return workspace
