"""What kopf calls: each event goes into the cache, and its run into the queue. Nothing else happens here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import kopf

from ocr_finetune_api import GROUP, PLURAL, VERSION
from ocr_finetune_operator.reconcile.cache import Cache, RunKey


def register(registry: kopf.OperatorRegistry, *, cache: Cache, enqueue: Callable[[RunKey], None]) -> None:
    """Registers the handlers."""

    @kopf.on.login(registry=registry)
    def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        return (
            kopf.login_with_service_account(**kwargs)
            or kopf.login_with_kubeconfig(**kwargs)
            or kopf.login_via_client(**kwargs)
        )

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
    async def run_seen(event: kopf.RawEvent, **_: Any) -> None:
        enqueue(cache.see_run(dict(event["object"]), gone=event["type"] == "DELETED"))

    @kopf.on.event("batch", "v1", "jobs", registry=registry)
    async def job_seen(event: kopf.RawEvent, **_: Any) -> None:
        key = cache.see_job(dict(event["object"]), gone=event["type"] == "DELETED")
        if key is not None:
            enqueue(key)

    @kopf.on.event("", "v1", "pods", registry=registry)
    async def pod_seen(event: kopf.RawEvent, **_: Any) -> None:
        key = cache.see_pod(dict(event["object"]), gone=event["type"] == "DELETED")
        if key is not None:
            enqueue(key)
