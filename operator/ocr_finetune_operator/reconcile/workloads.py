"""Why a queued Job waits, in the words of its Kueue Workload."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ocr_finetune_operator.constants import LABEL_KUEUE_JOB_UID
from ocr_finetune_operator.kube.client import Client
from ocr_finetune_operator.kube.errors import ForbiddenError, NotFoundError

_MOST = 10_000


class Workloads:
    """Asks for Workloads, each at most once in a while: nothing is watched that may not exist in the cluster."""

    def __init__(self, client: Client, *, clock: Callable[[], float], fresh: float) -> None:
        self._client = client
        self._clock = clock
        self._fresh = fresh
        self._known: dict[str, tuple[float, str]] = {}

    async def why(self, namespace: str, job_uid: str) -> str:
        """What the Workload of a Job says; empty if there is none, no Kueue, or no right to look."""
        asked_at, words = self._known.get(job_uid, (float("-inf"), ""))
        if self._clock() - asked_at < self._fresh:
            return words
        words = ""
        try:
            async for manifest in self._client.pages("Workload", namespace, labels=f"{LABEL_KUEUE_JOB_UID}={job_uid}"):
                words = why(manifest)
        except (NotFoundError, ForbiddenError):
            pass
        if len(self._known) >= _MOST:
            self._known.clear()
        self._known[job_uid] = (self._clock(), words)
        return words


def why(workload: Mapping[str, Any]) -> str:
    """Why a Workload is not admitted: that it was evicted, and what it waits for."""
    status, spec = workload.get("status") or {}, workload.get("spec") or {}
    conditions: Sequence[Mapping[str, Any]] = status.get("conditions") or ()
    by_type = {one.get("type"): one for one in conditions}
    found: list[str] = []
    if spec.get("active") is False:
        found.append("its Workload was deactivated; set its spec.active to true")
    evicted = by_type.get("Evicted", {})
    if evicted.get("status") == "True":
        found.append(str(evicted.get("message", "")))
    for kind in ("QuotaReserved", "Admitted"):
        if by_type.get(kind, {}).get("status") == "False":
            found.append(str(by_type[kind].get("message", "")))
            break
    checks = [check for check in status.get("admissionChecks") or () if check.get("state") not in ("Ready", None)]
    found += [f"check {check.get('name')}: {check.get('state')} {check.get('message', '')}".strip() for check in checks]
    return "; ".join(dict.fromkeys(words for words in found if words))
