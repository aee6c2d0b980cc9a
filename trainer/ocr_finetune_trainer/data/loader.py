"""Makes batches ahead of training, in processes of its own, in an order that does not depend on how many there are.

Batches travel through anonymous shared memory: no file in /dev/shm, nothing left behind by a kill, and no limit but the
machine's memory, which is checked before the first process starts. A process that dies or hangs is named with the
sample
it was working on.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
import pickle
import socket
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import psutil

from ocr_finetune_api.exit_codes import ConfigurationError, DataError, ExitCode, OCRFineTuneError
from ocr_finetune_trainer.data.worker import HEADER_BYTES, SampleError, Slot, Task, make_batch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ocr_finetune_trainer.data.order import Order
    from ocr_finetune_trainer.data.store import DataSet

__all__ = ["Batch", "Loader"]

logger = logging.getLogger(__name__)

Batch = dict[str, "NDArray[Any]"]
_Due = tuple[int, int, "_Worker"]  # epoch, step, and who makes the batch
START_TIMEOUT = 120.0  # seconds; a busy machine reads its programs slowly
SLOTS = 3  # batches a worker may have ready


class Loader:
    """Iterates over the batches of one rank, from a position on, epoch after epoch, for ever.

    Each batch is a dict of numpy arrays of its own: those of the transform, with `index` int64 (N,), the numbers of the
    samples, and `source` int32 (N,). In the last steps of an epoch N may be smaller, and 0 where there are more ranks
    than samples in a step.

    Attributes:
        dataset: The data set.
        order: The order.
        waited: Seconds the caller has waited for batches so far.
    """

    def __init__(
        self,
        dataset: DataSet,
        order: Order,
        transform: Any,
        *,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
        start: tuple[int, int] = (0, 0),
        seed: int = 0,
        stall_timeout: float = 300.0,
        total_steps: int = 0,
    ) -> None:
        """Prepares the loader; processes start with the first batch.

        Args:
            dataset: The data set.
            order: The order.
            transform: See `data.worker.make_batch`; it must be picklable where there are workers.
            rank: Which rank this is.
            world: How many ranks there are.
            workers: Processes; 0 makes batches in this one.
            start: Epoch and step to begin with.
            seed: Seed of the augmentation.
            stall_timeout: Seconds after which a batch counts as hung.
            total_steps: Steps of the whole training, for transforms that change over it; 0 if none does.
        """
        self.dataset = dataset
        self.order = order
        self.waited = 0.0
        self._transform = transform
        self._rank = rank
        self._world = world
        self._count = workers
        self._position = start
        self._seed = seed
        self._timeout = stall_timeout
        self._total_steps = total_steps
        self._workers: list[_Worker] = []

    def task(self, epoch: int, step: int, *, slot: int = 0) -> Task:
        """The part of a step that this rank makes."""
        everyone = self.order.step(epoch, step)
        mine = np.array_split(everyone, self._world)[self._rank]
        past = epoch * self.order.steps_per_epoch + step
        progress = min(past / self._total_steps, 1.0) if self._total_steps else 0.0
        return Task(epoch, step, slot, mine, everyone, progress)

    def batch(self, epoch: int, step: int) -> Batch:
        """Makes one batch here and now, the same that iterating gives at this position.

        Raises:
            DataError: A sample can't be used.
        """
        try:
            return make_batch(self.dataset, self._transform, self.task(epoch, step), seed=self._seed)
        except SampleError as error:
            raise _unusable(error.origin, error.reason) from error

    def _positions(self, start: tuple[int, int]) -> Iterator[tuple[int, int]]:
        epoch, step = start
        while True:
            if step >= self.order.steps_per_epoch:
                epoch, step = epoch + 1, 0
            yield epoch, step
            step += 1

    def __iter__(self) -> Iterator[Batch]:
        """The batches from the position on; it moves on with each. Workers begin at once, not with the first batch."""
        if self._count < 1:
            return self._alone()
        self._start()
        positions = enumerate(self._positions(self._position))
        due: deque[_Due] = deque()
        self._ask(positions, due)
        return self._together(positions, due)

    def _alone(self) -> Iterator[Batch]:
        for epoch, step in self._positions(self._position):
            self._position = (epoch, step + 1)
            began = time.monotonic()
            batch = self.batch(epoch, step)
            self.waited += time.monotonic() - began
            yield batch

    def _together(self, positions: Iterator[tuple[int, tuple[int, int]]], due: deque[_Due]) -> Iterator[Batch]:
        while True:
            epoch, step, worker = due.popleft()
            began = time.monotonic()
            batch = worker.take(epoch, step, timeout=self._timeout)
            self.waited += time.monotonic() - began
            self._ask(positions, due)
            self._position = (epoch, step + 1)
            yield batch

    def _ask(self, positions: Iterator[tuple[int, tuple[int, int]]], due: deque[_Due]) -> None:
        """Asks the workers in turn for as many batches as they have room for."""
        while len(due) < SLOTS * len(self._workers):
            turn, (epoch, step) = next(positions)
            worker = self._workers[turn % len(self._workers)]
            worker.ask(self.task(epoch, step, slot=(turn // len(self._workers)) % SLOTS))
            due.append((epoch, step, worker))

    def _start(self) -> None:
        if self._workers:
            return
        rows = -(-self.order.batch_size // self._world)
        _check_memory(self._count, rows * _bytes_a_sample(self._transform))
        message = pickle.dumps((self.dataset, self._transform, self._seed))
        self._workers = [_Worker(number, self.dataset) for number in range(self._count)]
        for worker in self._workers:
            worker.send_bytes(message)

    def close(self) -> None:
        """Ends the workers."""
        for worker in self._workers:
            worker.close()
        self._workers = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Worker:
    """One process that makes batches, seen from outside."""

    def __init__(self, number: int, dataset: DataSet) -> None:
        self._number = number
        self._dataset = dataset
        descriptors = [os.memfd_create(f"ocrft-batches-{number}-{slot}") for slot in range(1 + SLOTS)]
        os.ftruncate(descriptors[0], HEADER_BYTES)
        self._header = mmap.mmap(descriptors[0], HEADER_BYTES)
        struct.pack_into("<q", self._header, 0, -1)
        self._descriptors = descriptors
        self._slots = [Slot(descriptor) for descriptor in descriptors[1:]]
        ours, theirs = socket.socketpair()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "ocr_finetune_trainer.data.worker", *map(str, (theirs.fileno(), *descriptors))],
                pass_fds=(theirs.fileno(), *descriptors),
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                stdin=subprocess.DEVNULL,
            )
        finally:
            theirs.close()
        self._connection = Connection(ours.detach())
        self._ready = False

    def send_bytes(self, message: bytes) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._connection.send_bytes(message)

    def ask(self, task: Task) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # `take` says that it died, and why
            self._connection.send(task)

    def take(self, epoch: int, step: int, *, timeout: float) -> Batch:
        if not self._ready:
            self._receive(max(timeout, START_TIMEOUT))
            self._ready = True
        answer = self._receive(timeout)
        if answer[0] == "sample":
            raise _unusable(answer[4], answer[5])
        if answer[1:3] != (epoch, step):
            raise OCRFineTuneError(f"data worker {self._number} sent batch {answer[1:3]} instead of {(epoch, step)}")
        _, _, _, slot, layout, size = answer
        memory = self._slots[slot].buffer(max(size, 1))
        # A copy, because the worker fills the slot again while the caller still holds the batch.
        return {
            name: np.ndarray(shape, dtype, buffer=memory, offset=offset).copy() for name, dtype, shape, offset in layout
        }

    def _receive(self, timeout: float) -> tuple[Any, ...]:
        if not wait([self._connection], timeout):
            raise OCRFineTuneError(
                f"data worker {self._number} has made no batch for {timeout:.0f} s; it is at {self._sample()}",
                hint="look whether its storage hangs, or whether that picture is extremely large",
                exit_code=ExitCode.INTERNAL,
            )
        try:
            answer: tuple[Any, ...] = self._connection.recv()
        except (EOFError, ConnectionResetError):
            code = self._process.wait(timeout=10)
            how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
            raise OCRFineTuneError(
                f"data worker {self._number} {how} while it was at {self._sample()}",
                hint="signal 9 means that memory ran out: lower training.workers; 7 that a data file was cut off",
                exit_code=ExitCode.INTERNAL,
            ) from None
        return answer

    def _sample(self) -> str:
        (index,) = struct.unpack_from("<q", self._header, 0)
        return f"sample {index} ({self._dataset.origin(index)})" if index >= 0 else "its start"

    def close(self) -> None:
        self._connection.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for descriptor in self._descriptors:
            os.close(descriptor)


def _bytes_a_sample(transform: Any) -> int:
    """About what a sample takes in a batch: a picture of the usual size, and its maps for a detector."""
    geometry = getattr(transform, "geometry", None)
    if geometry is not None and hasattr(geometry, "train_height"):
        return int(geometry.train_height * geometry.train_width * (3 + 4 * 4))
    return int(getattr(geometry, "height", 1) * getattr(geometry, "min_width", 1) * 3)


def _check_memory(workers: int, batch_bytes: int) -> None:
    """Refuses before the first process starts what would be killed later, without a word, by the kernel."""
    needed = workers * SLOTS * batch_bytes
    limit = _memory_left()
    if needed > limit:
        raise ConfigurationError(
            f"{workers} data workers need about {needed / 2**20:.0f} MiB for their batches, "
            f"and {limit / 2**20:.0f} MiB are left",
            hint="lower training.workers or training.batchSize, or give the pod more memory",
        )


def _memory_left() -> int:
    left = int(psutil.virtual_memory().available)
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        try:
            text = Path(limit).read_text(encoding="ascii").strip()
            if text.isdecimal():
                left = min(left, max(int(text) - int(Path(used).read_text(encoding="ascii")), 0))
        except (OSError, ValueError):
            continue
    return left


def _unusable(origin: str, reason: str) -> DataError:
    return DataError(f"{origin}: can't be made into a training sample ({reason})", hint="prepare the data again")
