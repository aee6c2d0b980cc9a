"""What a process knows of its peers, and the few things that all of them do together.

Collectives on the host go through gloo also where gradients go through NCCL: agreeing on a stop must not wait for the
device. A gloo collective gives up after 30 seconds, so whatever may take longer on one rank than on another waits on the
store first, which has no such limit.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from ocr_finetune_api.exit_codes import PeerError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Ranks"]

Numbers = Any  # what np.asarray makes an array of float64 of

_POLL_SECONDS = 0.02


class Ranks:
    """The gang as one of its processes sees it.

    Attributes:
        rank: Number of this process over all nodes.
        world: How many there are.
        local_rank: Its number on this node, which is that of its device.
    """

    def __init__(
        self,
        *,
        rank: int,
        world: int,
        local_rank: int,
        waiting: Callable[[bool], None] | None = None,
        computed: Callable[[float], None] | None = None,
    ) -> None:
        """Connects nothing yet; see `connect`.

        Args:
            rank: Number of this process.
            world: How many there are.
            local_rank: Its number on this node.
            waiting: Told when this process begins and ends to wait for others.
            computed: Told how far this process has come in a backward pass, in which it may wait for others.
        """
        self.rank = rank
        self.world = world
        self.local_rank = local_rank
        self._waiting = waiting or (lambda _: None)
        self.computed = computed or (lambda _: None)
        self._group: Any = None
        self._store: Any = None
        self._barriers = 0

    @classmethod
    def from_environment(
        cls, *, waiting: Callable[[bool], None] | None = None, computed: Callable[[float], None] | None = None
    ) -> Ranks:
        """As `paddle.distributed.launch` says it; alone where nobody does."""
        return cls(
            rank=int(os.environ.get("PADDLE_TRAINER_ID", "0")),
            world=int(os.environ.get("PADDLE_TRAINERS_NUM", "1")),
            local_rank=int(os.environ.get("PADDLE_LOCAL_RANK", "0")),
            waiting=waiting,
            computed=computed,
        )

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files."""
        return self.rank == 0

    def connect(self, *, gpu: bool) -> None:
        """Meets the others; every process must call it."""
        if self.world == 1:
            return
        import paddle
        from paddle import distributed as dist

        if not gpu:
            os.environ["PADDLE_DISTRI_BACKEND"] = "gloo"
        with self.together():
            dist.init_parallel_env()
            self._store = paddle.base.core.create_or_get_global_tcp_store()
            # The default group serves gradients; on GPUs that is NCCL's.
            self._group = dist.new_group(list(range(self.world)), backend="gloo") if gpu else None

    @contextmanager
    def together(self) -> Iterator[None]:
        """Marks a time in which this process may wait for others, so that nobody takes it for the one that hangs."""
        self._waiting(True)
        try:
            yield
        finally:
            self._waiting(False)

    def sum(self, values: Numbers) -> NDArray[np.float64]:
        """The sum of an array over all ranks, the same on each.

        Args:
            values: float64 of the same shape everywhere.
        """
        array = np.ascontiguousarray(values, dtype=np.float64)
        return array if self.world == 1 else self.gather(array).sum(axis=0)

    def gather(self, values: Numbers) -> NDArray[np.float64]:
        """The arrays of all ranks, (world, …), in the order of ranks."""
        array = np.ascontiguousarray(values, dtype=np.float64)
        if self.world == 1:
            return array[None]
        import paddle
        from paddle import distributed as dist

        place = paddle.CPUPlace()
        parts: list[Any] = []
        with self.together():
            dist.all_gather(parts, paddle.to_tensor(array, place=place), group=self._group)
        return np.stack([part.numpy() for part in parts]).reshape(self.world, *array.shape)

    def share(self, text: str) -> str:
        """Gives a text of rank 0 to all ranks; what the others pass is ignored."""
        if self.world == 1:
            return text
        self._barriers += 1
        key = f"ocrft/share/{self._barriers}"
        with self.together():
            if self.first:
                self._store.set(key, text.encode())
                return text
            value: bytes = self._store.get(key)
        return value.decode()

    def wait_for_all(self, what: str, *, timeout: float) -> None:
        """Waits until all ranks are here, longer than a collective would.

        Args:
            what: What they come from, for the message.
            timeout: Seconds.

        Raises:
            PeerError: Some did not come; the message names them.
        """
        if self.world == 1:
            return
        self._barriers += 1
        prefix = f"ocrft/barrier/{self._barriers}"
        with self.together():
            self._store.add(f"{prefix}/{self.rank}", 1)
            deadline = time.monotonic() + timeout
            missing = list(range(self.world))
            while missing:
                missing = [rank for rank in missing if not self._store.add(f"{prefix}/{rank}", 0)]
                if not missing:
                    return
                if time.monotonic() > deadline:
                    names = ", ".join(f"rank {rank}" for rank in missing)
                    raise PeerError(f"{names} did not come out of {what} within {timeout:.0f} s")
                time.sleep(_POLL_SECONDS)
