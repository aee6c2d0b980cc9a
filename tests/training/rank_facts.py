"""What two ranks find out together, each a process of its own; `test_ranks_together.py` reads what they write.

python rank_facts.py FOLDER SET     with the environment that the launcher gives
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path

import numpy as np
import paddle

from ocr_finetune_trainer import losses, models
from ocr_finetune_trainer.data.store import DataSet
from ocr_finetune_trainer.dictionary import Dictionary, targets
from ocr_finetune_trainer.geometry import recognition_geometry
from ocr_finetune_trainer.training import validate
from ocr_finetune_trainer.training.average import buffers, floats, to_arrays
from ocr_finetune_trainer.training.checkpoint import Fence, Manifest, Progress
from ocr_finetune_trainer.training.choices import Settings
from ocr_finetune_trainer.training.optimizer import Optimizer, trainable
from ocr_finetune_trainer.training.ranks import Ranks
from ocr_finetune_trainer.training.saver import TrainingState
from ocr_finetune_trainer.training.step import TrainStep
from ocr_finetune_trainer.training.writer import CheckpointWriter

NAME = "MobileNetV3_small_ctc"
SLOW_SECONDS = float(os.environ.get("SLOW_SECONDS", "1"))


def settings() -> Settings:
    return Settings(
        epochs=1, global_batch=8, batch_size=8, peak_rate=1e-3, warmup_epochs=0, weight_decay=0.0, clip_norm=0.0,
        precision="fp32", batch_norm="local", ema=0.0, layer_decay=1.0, head_rate=1.0, workers=0, evaluate_every=1,
    )  # fmt: skip


def batch(ranks: Ranks, *, width: int, count: int) -> dict[str, np.ndarray]:
    """Noise, other noise on each rank."""
    rng = np.random.default_rng(ranks.rank)
    labels = targets([[int(c) for c in rng.integers(1, 10, 3)] for _ in range(count)], guide="", size=10)
    return {
        "image": rng.integers(0, 256, (count, 32, width, 3), dtype=np.uint8), "index": np.arange(count),
        "valid_width": np.full(count, width, np.int32), "source": np.zeros(count, np.int32), **labels,
    }  # fmt: skip


def checksum(values: dict[str, np.ndarray]) -> float:
    return float(sum(value.astype(np.float64).sum() for value in values.values()))


def main(folder: Path, data: Path) -> None:
    """Trains on other shapes on each rank, and measures a share of the set on each."""
    ranks = Ranks.from_environment()
    paddle.set_device("cpu")
    ranks.connect(gpu=False)
    paddle.seed(1)
    model = models.build(NAME, characters=10, guided=False)
    model.train()
    optimizer = Optimizer(trainable(model), weight_decay=0.0)
    step = TrainStep(
        model=model, loss=losses.build(NAME, guided=False), optimizer=optimizer,
        normalization=recognition_geometry(NAME).normalization, settings=settings(), ranks=ranks, gpu=False, seed=1,
        most_pixels=10**9,
    )  # fmt: skip
    begin = checksum(weights(model))
    # Pictures of another width and another number of samples on each rank.
    width, count = ((80, 3), (160, 5))[ranks.rank]
    for number in range(2):
        step(batch(ranks, width=width, count=count), step=number, total=8, rate=1e-3)
    state = TrainingState(
        model=model, average=None, optimizer=optimizer, scale=step.scale, ranks=ranks, folder=folder, writer=None,
        manifest=Manifest(step=0),
    )  # fmt: skip
    own = checksum(to_arrays(buffers(model)))
    seen: list[int] = []
    with state.measured() as measured:
        together = checksum(to_arrays(buffers(measured)))
        figures = validate.measure_on_all_ranks(
            measured,
            DataSet.open(data),
            geometry=recognition_geometry(NAME),
            dictionary=Dictionary.load(folder / "dictionary.txt"),
            ranks=ranks,
            batch_size=4,
            timeout=60.0,
            progress=lambda done, total: seen.append(done),
        )
    waited = wait_for_a_slow_disk(folder, ranks=ranks, model=model, optimizer=optimizer, step=step)
    found = {
        "waited": waited, "begin": begin, "weights": checksum(weights(model)), "own": own, "together": together,
        "after": checksum(to_arrays(buffers(model))), "measured": max(seen), "figures": figures,
    }  # fmt: skip
    (folder / f"facts-{ranks.rank}.json").write_text(json.dumps(found, default=float), encoding="utf-8")


def wait_for_a_slow_disk(
    folder: Path, *, ranks: Ranks, model: paddle.nn.Layer, optimizer: Optimizer, step: TrainStep
) -> float:
    """Saves twice, the first time to a disk that takes a while more when all wait; seconds that the second takes."""
    fence = folder / "fence"  # nothing is renamed before it was read, and who reads a pipe waits for a writer
    writer = None
    if ranks.first:
        os.mkfifo(fence)
        writer = CheckpointWriter(
            folder / "checkpoints", fence=Fence(fence, attempt=1, execution="e"), keep_last=2, patience_seconds=60.0
        )
    state = TrainingState(
        model=model, average=None, optimizer=optimizer, scale=step.scale, ranks=ranks, folder=folder / "checkpoints",
        writer=writer, manifest=Manifest(step=0, execution="e"),
    )  # fmt: skip
    state.save(Progress(step=1), metric=None, last=False)
    if ranks.first:
        threading.Thread(target=open_slowly, args=(fence, [waits(folder, rank) for rank in range(ranks.world)])).start()
    began = time.monotonic()
    waits(folder, ranks.rank).touch()
    state.save(Progress(step=2), metric=None, last=False)
    seconds = time.monotonic() - began
    if writer is not None:
        writer.wait()
    return seconds


def waits(folder: Path, rank: int) -> Path:
    """A file that says that a rank begins to wait."""
    return folder / f"waits-{rank}"


def open_slowly(fence: Path, waiting: list[Path]) -> None:
    while not all(path.exists() for path in waiting):
        time.sleep(0.01)
    time.sleep(SLOW_SECONDS)
    with fence.open("w"):
        # For the second checkpoint there is no fence at all.
        fence.unlink()


def weights(model: paddle.nn.Layer) -> dict[str, np.ndarray]:
    statistics = buffers(model).keys()
    return {name: value.numpy() for name, value in floats(model).items() if name not in statistics}


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
