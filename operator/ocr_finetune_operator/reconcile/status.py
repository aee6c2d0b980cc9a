"""Writes the status: what changed of it, guarded by the run's resourceVersion, and never larger than its budget."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ocr_finetune_api.status import MAX_STATUS_BYTES, OCRFineTuneStatus
from ocr_finetune_operator.reconcile.decide import read_status

_KNOWN = frozenset(field.alias or name for name, field in OCRFineTuneStatus.model_fields.items())


def patch(current: Mapping[str, Any], wanted: OCRFineTuneStatus) -> dict[str, Any]:
    """The merge patch (RFC 7386) from a status as it stands to the one that is wanted; empty if they say the same.

    Fields that this version does not know stay: a newer operator may have written them.
    """
    if current and wanted == read_status(current):
        return {}
    before = {key: value for key, value in current.items() if key in _KNOWN}
    return _difference(before, bounded(wanted).to_dict())


def bounded(status: OCRFineTuneStatus) -> OCRFineTuneStatus:
    """The status within its budget: what is longest and least needed goes first."""
    if _size(status) <= MAX_STATUS_BYTES:
        return status
    if status.failure is not None:
        failure = status.failure.model_copy(update={"log_tail": "", "message": status.failure.message[:512]})
        status = status.model_copy(update={"failure": failure})
    if _size(status) > MAX_STATUS_BYTES:
        resolved = status.resolved.model_copy(update={"choices": []})
        status = status.model_copy(update={"resolved": resolved, "metrics": None})
    while _size(status) > MAX_STATUS_BYTES and len(status.attempts) > 1:
        status = status.model_copy(update={"attempts": status.attempts[1:]})
    return status


def _size(status: OCRFineTuneStatus) -> int:
    return len(json.dumps(status.to_dict(), ensure_ascii=False).encode())


def _difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    changed: dict[str, Any] = {key: None for key in before if key not in after}
    for key, value in after.items():
        old = before.get(key)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            inner = _difference(old, value)
            if inner:
                changed[key] = inner
        elif value != old:
            changed[key] = value
    return changed
