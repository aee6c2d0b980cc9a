"""Kubernetes Events about a run: best effort, from one task, so that telling never holds up doing."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from ocr_finetune_api import API_VERSION, KIND
from ocr_finetune_operator.constants import MANAGER
from ocr_finetune_operator.kube.client import Client
from ocr_finetune_operator.kube.errors import ApiError, UnreachableError
from ocr_finetune_operator.reconcile.draft import Note
from ocr_finetune_operator.reconcile.views import Manifest, RunView, iso

logger = logging.getLogger(__name__)

_MAX_WAITING = 5000


class Recorder:
    """Sends events in their order; when too many wait, new ones are dropped and counted in the log."""

    def __init__(self, client: Client, *, clock: Callable[[], float] = time.time) -> None:
        self._client = client
        self._clock = clock
        self._queue: asyncio.Queue[Manifest] = asyncio.Queue(maxsize=_MAX_WAITING)

    def record(self, run: RunView, note: Note) -> None:
        """Sends an event when its turn comes."""
        now = iso(self._clock())
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": f"{run.name}.", "namespace": run.namespace},
            "involvedObject": {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "name": run.name,
                "namespace": run.namespace,
                "uid": run.uid,
                "resourceVersion": run.resource_version,
            },
            "reason": note.reason,
            "message": note.message,
            "type": "Warning" if note.warning else "Normal",
            "source": {"component": MANAGER},
            "reportingComponent": MANAGER,
            "reportingInstance": MANAGER,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        try:
            self._queue.put_nowait(event)
        except asyncio.QueueFull:
            logger.warning("too many events wait; dropped %s of %s/%s", note.reason, run.namespace, run.name)

    async def run(self) -> None:
        """Sends until it is cancelled."""
        while True:
            event = await self._queue.get()
            try:
                await self._client.create(event)
            except (ApiError, UnreachableError) as error:
                logger.debug("an event could not be sent: %s", error)
            finally:
                self._queue.task_done()

    async def drain(self) -> None:
        """Waits until all events are sent."""
        await self._queue.join()
