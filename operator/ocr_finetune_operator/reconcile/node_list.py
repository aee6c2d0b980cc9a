"""The cluster's nodes, asked for at most once a minute: a thousand runs that start together need one answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ocr_finetune_operator.kube.client import Client
from ocr_finetune_operator.kube.errors import ForbiddenError

Node = tuple[Mapping[str, str], Mapping[str, Any]]
_FRESH_SECONDS = 60.0


class NodeList:
    """Labels and allocatable resources of all nodes."""

    def __init__(self, client: Client, *, clock: Callable[[], float]) -> None:
        self._client = client
        self._clock = clock
        self._nodes: Sequence[Node] = ()
        self._read_at = float("-inf")
        self._lock = asyncio.Lock()

    async def all(self) -> Sequence[Node] | None:
        """The nodes; None where they may not be listed."""
        async with self._lock:
            if self._clock() - self._read_at > _FRESH_SECONDS:
                try:
                    listed = [node async for node in self._client.pages("Node")]
                except ForbiddenError:
                    return None
                self._nodes = [
                    (one["metadata"].get("labels") or {}, (one.get("status") or {}).get("allocatable") or {})
                    for one in listed
                ]
                self._read_at = self._clock()
            return self._nodes
