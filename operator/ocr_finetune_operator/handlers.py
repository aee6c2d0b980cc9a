"""What kopf calls: each event is handed on. Nothing else happens here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import kopf

from ocr_finetune_api import GROUP, PLURAL, VERSION
from ocr_finetune_operator.reconcile.views import Manifest

Seen = Callable[[str, Manifest, bool], None]


def register(registry: kopf.OperatorRegistry, *, seen: Seen) -> None:
    """Registers the handlers.

    Args:
        registry: kopf's.
        seen: Called with the kind, the object, and whether it is gone.
    """

    @kopf.on.login(registry=registry)
    def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        return (
            kopf.login_with_service_account(**kwargs)
            or kopf.login_with_kubeconfig(**kwargs)
            or kopf.login_via_client(**kwargs)
        )

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
    async def run_seen(event: kopf.RawEvent, **_: Any) -> None:
        seen("OCRFineTune", dict(event["object"]), event["type"] == "DELETED")

    @kopf.on.event("batch", "v1", "jobs", registry=registry)
    async def job_seen(event: kopf.RawEvent, **_: Any) -> None:
        seen("Job", dict(event["object"]), event["type"] == "DELETED")

    @kopf.on.event("", "v1", "pods", registry=registry)
    async def pod_seen(event: kopf.RawEvent, **_: Any) -> None:
        seen("Pod", dict(event["object"]), event["type"] == "DELETED")
