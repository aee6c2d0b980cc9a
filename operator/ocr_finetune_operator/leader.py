"""Which of several replicas works: the one that holds the Lease.

A leader that can't renew in time ends itself before another may take over. Even if two worked at once, nothing would be
done twice: status writes are guarded by resourceVersion, and what is made has fixed names.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime

from ocr_finetune_operator.kube.client import Client
from ocr_finetune_operator.kube.errors import ApiError, ConflictError, UnreachableError
from ocr_finetune_operator.reconcile.views import Manifest

logger = logging.getLogger(__name__)


class Leader:
    """Takes and holds a Lease.

    Attributes:
        holds: Whether this replica is the leader now.
    """

    def __init__(
        self,
        client: Client,
        *,
        namespace: str,
        name: str,
        identity: str,
        duration: float,
        renew: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._duration = duration
        self._renew = renew
        self._clock = clock
        self._seen: tuple[str, float] = ("", 0.0)
        self.holds = False

    async def take(self) -> None:
        """Waits until this replica is the leader."""
        while not await self._try():  # noqa: ASYNC110 - nobody here learns that a Lease became free
            await asyncio.sleep(self._renew)
        self.holds = True
        logger.info("is the leader now, as %s", self._identity)

    async def hold(self) -> None:
        """Renews the Lease; returns when it is lost or could not be renewed in time."""
        renewed = self._clock()
        while True:
            await asyncio.sleep(self._renew)
            try:
                # A request that hangs must not make this replica believe for too long.
                held = await asyncio.wait_for(self._try(), timeout=max(self._duration / 2 - self._renew, 1.0))
            except TimeoutError:
                held = None
            if held:
                renewed = self._clock()
            elif held is False or self._clock() - renewed > self._duration * 0.66:
                self.holds = False
                logger.error("lost the Lease %s/%s", self._namespace, self._name)
                return

    async def release(self) -> None:
        """Gives the Lease back, so that another replica need not wait."""
        if not self.holds:
            return
        self.holds = False
        try:
            lease = await self._client.get("Lease", self._name, self._namespace)
            if lease is not None and lease["spec"].get("holderIdentity") == self._identity:
                lease["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1}
                await self._client.replace({**lease, "apiVersion": "coordination.k8s.io/v1", "kind": "Lease"})
        except (ApiError, UnreachableError) as error:
            logger.warning("the Lease could not be given back: %s", error)

    async def _try(self) -> bool | None:
        """Takes or renews the Lease; None if the API server could not be asked."""
        try:
            lease = await self._client.get("Lease", self._name, self._namespace)
            if lease is None:
                await self._client.create(self._lease({}))
                return True
            spec = lease["spec"]
            holder = spec.get("holderIdentity") or ""
            if holder not in ("", self._identity) and not self._expired(lease):
                return False
            await self._client.replace(self._lease(lease))
        except ConflictError:
            return False
        except (ApiError, UnreachableError) as error:
            logger.warning("the Lease %s/%s: %s", self._namespace, self._name, error)
            return None
        return True

    def _expired(self, lease: Manifest) -> bool:
        """Whether its holder has been silent for the whole duration, by this machine's own clock."""
        version = lease["metadata"]["resourceVersion"]
        if self._seen[0] != version:
            self._seen = (version, self._clock())
        duration = float(lease["spec"].get("leaseDurationSeconds") or self._duration)
        return self._clock() - self._seen[1] > duration

    def _lease(self, before: Manifest) -> Manifest:
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        spec = before.get("spec") or {}
        mine = spec.get("holderIdentity") == self._identity
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": before.get("metadata") or {"name": self._name, "namespace": self._namespace},
            "spec": {
                "holderIdentity": self._identity,
                "leaseDurationSeconds": max(round(self._duration), 1),
                "acquireTime": spec.get("acquireTime", now) if mine else now,
                "renewTime": now,
                "leaseTransitions": int(spec.get("leaseTransitions") or 0) + (0 if mine else 1),
            },
        }
