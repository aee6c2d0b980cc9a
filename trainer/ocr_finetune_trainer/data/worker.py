"""A process that makes batches: reads, decodes, augments, and puts the result where the training process sees it.

It is started as a program of its own (`python -m ocr_finetune_trainer.data.worker`), so it holds neither Paddle nor any
lock of its parent, and it ends when its parent does, because their connection closes.
"""

from __future__ import annotations

import inspect
import mmap
import os
import pickle
import signal
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import cv2
import numpy as np

from ocr_finetune_trainer.data.order import generator
from ocr_finetune_trainer.processes import keep_memory

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ocr_finetune_trainer.data.store import DataSet, Sample

__all__ = ["BatchTransform", "Layout", "SampleError", "Slot", "Task", "make_batch"]

HEADER_BYTES = 64  # the first 8 hold the number of the sample in work
_ALIGN = 64


@runtime_checkable
class BatchTransform(Protocol):
    """A transform that puts its batches together itself, because samples of one batch depend on each other."""

    def batch(
        self, samples: Iterator[tuple[Sample, np.random.Generator]], *, dataset: DataSet, everyone: NDArray[np.int64]
    ) -> dict[str, NDArray[Any]]:
        """The batch of one rank; see `recognition_samples.RecognitionTransform.batch`."""


class SampleError(Exception):
    """A sample that no batch can be made with.

    Attributes:
        index: Its number.
        origin: Where it comes from.
        reason: What is wrong.
    """

    def __init__(self, index: int, origin: str, reason: str) -> None:
        super().__init__(index, origin, reason)
        self.index = index
        self.origin = origin
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Task:
    """One batch to make.

    Attributes:
        epoch: Its epoch.
        step: Its step in the epoch.
        slot: Where it goes.
        indices: The samples of this rank.
        everyone: The samples of all ranks.
        progress: How much of the training is over, 0 to 1.
    """

    epoch: int
    step: int
    slot: int
    indices: NDArray[np.int64]
    everyone: NDArray[np.int64]
    progress: float = 0.0


Layout = list[tuple[str, str, tuple[int, ...], int]]  # name, dtype, shape, offset in the slot


def make_batch(
    dataset: DataSet, transform: Any, task: Task, *, seed: int, begin: Callable[[int], None] = lambda _: None
) -> dict[str, NDArray[Any]]:
    """Makes a batch.

    Args:
        dataset: The data set.
        transform: A `BatchTransform`, or a callable from (sample, random numbers) to arrays of equal shapes.
        task: Which batch.
        seed: Decides everything random.
        begin: Told the number of each sample before it is worked on.

    Returns:
        The transform's arrays, and `index` int64 (N,), `source` int32 (N,).

    Raises:
        SampleError: A sample can't be read or transformed.
    """
    current = -1

    def samples() -> Iterator[tuple[Sample, np.random.Generator]]:
        nonlocal current
        for index in task.indices:
            current = int(index)
            begin(current)
            yield dataset[current], generator(seed, task.epoch, current, step=task.step)

    try:
        if isinstance(transform, BatchTransform):
            batch = transform.batch(samples(), dataset=dataset, everyone=task.everyone)
        else:
            more = {"progress": task.progress} if _takes_progress(transform) else {}
            items = [transform(sample, rng, **more) for sample, rng in samples()]
            batch = {name: np.stack([item[name] for item in items]) for name in items[0]} if items else {}
    except Exception as error:
        if current < 0:
            raise
        origin = dataset.origin(current)
        raise SampleError(current, origin, f"{type(error).__name__}: {error}") from error
    batch["index"] = task.indices
    batch["source"] = dataset.sources[task.indices].astype(np.int32)
    return batch


def _takes_progress(transform: Any) -> bool:
    return "progress" in inspect.signature(transform).parameters


def layout_of(batch: dict[str, NDArray[Any]]) -> tuple[Layout, int]:
    """Where each array of a batch goes in its slot, and how many bytes they take."""
    layout: Layout = []
    offset = 0
    for name, array in batch.items():
        layout.append((name, array.dtype.str, array.shape, offset))
        offset += -(-array.nbytes // _ALIGN) * _ALIGN
    return layout, offset


def main() -> None:
    """Serves batches until the connection closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    cv2.setNumThreads(0)
    keep_memory()
    connection = Connection(int(sys.argv[1]))
    header, *slots = (int(descriptor) for descriptor in sys.argv[2:])
    try:
        _serve(connection, mmap.mmap(header, HEADER_BYTES), [Slot(descriptor) for descriptor in slots])
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


class Slot:
    """Anonymous shared memory for one batch; it grows with the largest batch it has held."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._size = 0
        self._memory: mmap.mmap | None = None

    def buffer(self, size: int) -> mmap.mmap:
        """The memory, at least so many bytes of it."""
        if self._memory is None or size > self._size:
            self._size = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
            if os.fstat(self._descriptor).st_size < self._size:
                os.ftruncate(self._descriptor, self._size)
            self._memory = mmap.mmap(self._descriptor, self._size)
        return self._memory


def _serve(connection: Connection, header: mmap.mmap, slots: list[Slot]) -> None:
    dataset, transform, seed = pickle.loads(connection.recv_bytes())  # noqa: S301 - from its own parent

    def begin(index: int) -> None:
        struct.pack_into("<q", header, 0, index)

    connection.send(("ready",))
    while True:
        task: Task = connection.recv()
        try:
            batch = make_batch(dataset, transform, task, seed=seed, begin=begin)
        except SampleError as error:
            connection.send(("sample", task.epoch, task.step, error.index, error.origin, error.reason))
            continue
        layout, size = layout_of(batch)
        memory = slots[task.slot].buffer(max(size, 1))
        for (_, _, _, offset), array in zip(layout, batch.values(), strict=True):
            target: NDArray[Any] = np.ndarray(array.shape, array.dtype, buffer=memory, offset=offset)
            target[...] = array
        connection.send(("batch", task.epoch, task.step, task.slot, layout, size))


if __name__ == "__main__":
    main()
