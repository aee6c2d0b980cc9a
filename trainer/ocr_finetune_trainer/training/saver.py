"""What goes into a checkpoint and comes out of it again, on all ranks."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import paddle

from ocr_finetune_api.exit_codes import DivergedError, OCRFineTuneError
from ocr_finetune_trainer.training import checkpoint
from ocr_finetune_trainer.training.average import HostCopy, buffers, floats, load, to_arrays
from ocr_finetune_trainer.training.checkpoint import EMA, MODEL, OPTIMIZER, RANKS, Checkpoint, Manifest, Progress

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from paddle import nn

    from ocr_finetune_trainer.training.average import Average
    from ocr_finetune_trainer.training.optimizer import Optimizer
    from ocr_finetune_trainer.training.ranks import Ranks
    from ocr_finetune_trainer.training.scaling import LossScale
    from ocr_finetune_trainer.training.writer import CheckpointWriter

    Arrays = dict[str, NDArray[Any]]

__all__ = ["TrainingState"]


class TrainingState:
    """The arrays of a training: model, moving average, optimizer.

    Ranks have the same weights, but batch norms see different samples on each. What is used, evaluated and saved is the
    mean of their statistics. Each rank's own ones are saved too, so that a run that goes on with as many ranks goes on
    bit by bit, whenever it was interrupted.
    """

    def __init__(
        self,
        *,
        model: nn.Layer,
        average: Average | None,
        optimizer: Optimizer,
        scale: LossScale,
        ranks: Ranks,
        folder: Path,
        writer: CheckpointWriter | None,
        manifest: Manifest,
        patience: float = 1800.0,
    ) -> None:
        """Takes what is to be saved.

        Args:
            model: The model.
            average: Its moving average.
            optimizer: What changes it.
            scale: Loss scaling.
            ranks: The gang.
            folder: The run's folder of checkpoints.
            writer: Writes them; rank 0 has one.
            manifest: What is the same in all of them.
            patience: Seconds that the ranks wait for a slow disk.
        """
        self._model = model
        self._average = average
        self._optimizer = optimizer
        self._scale = scale
        self._ranks = ranks
        self._folder = folder
        self._writer = writer
        self._manifest = manifest
        self._patience = patience
        self._copy = HostCopy()

    @contextmanager
    def measured(self) -> Iterator[nn.Layer]:
        """The model to measure: the average if there is one, with the mean of all ranks' statistics."""
        model = self._average.model if self._average is not None else self._model
        if self._ranks.world == 1:
            yield model
            return
        self._require_equal_weights()
        statistics = buffers(model)
        own = to_arrays(statistics)
        mean, _ = self._over_ranks(own)
        _put(statistics, mean)
        try:
            yield model
        finally:
            _put(statistics, own)

    def save(self, progress: Progress, *, metric: float | None, last: bool) -> None:
        """Copies everything and begins to write it; waits for the end only if it is the last one."""
        if self._writer is not None:
            # The copies of the checkpoint before are still being written until it is done.
            self._writer.wait()
        # A slow disk may take longer than a collective has patience for: the others wait here, not in their next step.
        self._ranks.wait_for_all("the checkpoint before", timeout=self._patience)
        models = {MODEL: self._model} | ({EMA: self._average.model} if self._average else {})
        own = {name: to_arrays(buffers(model)) for name, model in models.items()} if self._ranks.world > 1 else {}
        gathered = {name: self._over_ranks(arrays) for name, arrays in own.items()}
        if self._writer is not None:
            files: dict[str, Mapping[str, NDArray[Any]]] = {
                name: self._copy.of(model.state_dict(), prefix=name) | (gathered[name][0] if gathered else {})
                for name, model in models.items()
            }
            files[OPTIMIZER] = self._copy.of(self._optimizer.state(), prefix=OPTIMIZER)
            if self._ranks.world > 1:
                files[RANKS] = {name: rows.astype(np.float32) for name, (_, rows) in gathered.items()}
            scale = {"loss_scale": self._scale.value, "good_steps": self._scale.good_steps}
            manifest = self._manifest.model_copy(
                update={
                    "step": progress.step,
                    "metric": metric,
                    "world": self._ranks.world,
                    "progress": progress.model_copy(update=scale),
                    "written_at": time.time(),
                }
            )
            (self._writer.save_last if last else self._writer.save)(manifest, files)

    def restore(self, found: Checkpoint) -> Progress:
        """Goes on from a checkpoint; every rank calls it with the same one."""
        values = found.arrays(MODEL)
        load(self._model, values)
        if self._average is not None:
            load(self._average.model, found.arrays(EMA) or values)
        self._optimizer.restore(found.arrays(OPTIMIZER))
        own = found.arrays(RANKS)
        if own and found.manifest.world == self._ranks.world:
            self._restore_own(MODEL, self._model, own)
            if self._average is not None:
                self._restore_own(EMA, self._average.model, own)
        progress = found.manifest.progress
        self._scale.restore(value=progress.loss_scale, good_steps=progress.good_steps)
        return progress

    def moments(self) -> Arrays:
        """The optimizer's state, for one that is made anew."""
        return to_arrays(self._optimizer.state())

    def take_moments(self, moments: Arrays) -> None:
        """Goes on with the state of an optimizer that was there before."""
        if moments:
            self._optimizer.restore(moments)

    def go_back(self, progress: Progress) -> Progress:
        """Restores the newest whole checkpoint from before a step, and removes those that came after it.

        Raises:
            DivergedError: There is none.
        """
        if self._writer is not None:
            self._writer.wait()
        name = ""
        if self._ranks.first:
            found, _ = checkpoint.find(self._folder)
            good = [item for item in found if item.step < progress.step and item.damage() is None]
            for item in found:
                if not good or item.step > good[0].step:
                    checkpoint.remove(item.path)
            name = good[0].path.name if good else ""
        name = self._ranks.share(name)
        if not name:
            raise DivergedError(f"training diverged at step {progress.step}, and there is no checkpoint to go back to")
        found_here, _ = checkpoint.find(self._folder)
        return self.restore(next(item for item in found_here if item.path.name == name))

    def _require_equal_weights(self) -> None:
        """Makes sure that the ranks still train one model: a broken reduction would go unnoticed otherwise."""
        statistics = buffers(self._model).keys()
        values = [value for name, value in floats(self._model).items() if name not in statistics]
        total = float(sum(float(value.astype("float64").sum()) for value in values))
        totals = self._ranks.gather([total]).ravel()
        wrong = [rank for rank, theirs in enumerate(totals) if theirs != totals[0]]
        if wrong:
            names = ", ".join(f"rank {rank}" for rank in wrong)
            raise OCRFineTuneError(
                f"{names} holds other weights than rank 0: gradients were not reduced",
                hint="this is a mistake of the program or of the network; please report it",
            )

    def _restore_own(self, name: str, model: nn.Layer, own: Arrays) -> None:
        if name in own:
            statistics = buffers(model)
            shapes = {key: tuple(value.shape) for key, value in statistics.items()}
            _put(statistics, _unpack(own[name][self._ranks.rank], shapes))

    def _over_ranks(self, own: Arrays) -> tuple[Arrays, NDArray[np.float64]]:
        """The mean of arrays over ranks, and the arrays of all ranks as rows."""
        packed = np.concatenate([own[name].ravel() for name in sorted(own)]) if own else np.zeros(0)
        rows = self._ranks.gather(packed.astype(np.float64))
        if self._ranks.world == 1:
            return own, rows
        return _unpack(rows.mean(axis=0), {name: value.shape for name, value in own.items()}), rows


def _unpack(packed: NDArray[Any], shapes: Mapping[str, tuple[int, ...]]) -> Arrays:
    arrays: Arrays = {}
    at = 0
    for name in sorted(shapes):
        size = int(np.prod(shapes[name]))
        arrays[name] = packed[at : at + size].reshape(shapes[name]).astype(np.float32)
        at += size
    return arrays


def _put(targets: Mapping[str, Any], values: Mapping[str, NDArray[Any]]) -> None:
    with paddle.no_grad():
        for name, target in targets.items():
            target.set_value(values[name])
