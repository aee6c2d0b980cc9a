"""From a stage's result to what the status shows of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ocr_finetune_api.plan import Stage
from ocr_finetune_api.results import StageResult, parse
from ocr_finetune_api.status import Artifacts, Metrics, OCRFineTuneStatus
from ocr_finetune_operator.reconcile.views import PodView

_MAX_METRICS = 4096
_ARTIFACTS = {
    "checkpoint": ("checkpoint", "best", "bestCheckpoint"),
    "model": ("model", "paddle"),
    "onnx": ("onnx",),
    "report": ("report", "evaluationReport"),
    "data_report": ("dataReport", "data_report"),
    "uri": ("uri", "destination", "archive"),
}


def of_job(pods: Sequence[PodView], stage: Stage) -> StageResult | None:
    """The result that rank 0 left in its termination message; None if there is none that can be read."""
    for pod in sorted(pods, key=lambda one: one.index):
        if pod.exit_code == 0 and pod.exit_message:
            result = parse(pod.exit_message)
            if result is not None and result.succeeded and result.stage is stage:
                return result
    return None


def metrics(status: OCRFineTuneStatus, result: StageResult) -> Metrics | None:
    """The metrics with what a stage measured; what would not fit is said to be left out."""
    before = status.metrics or Metrics()
    found = dict(result.metrics)
    update: dict[str, Any] = {}
    if isinstance(found.get("metric"), str):
        update["name"] = str(found["metric"])[:64]
    if "optimistic" in result.details:
        update["optimistic"] = bool(result.details["optimistic"])
    for part in ("base", "best", "exported"):
        if isinstance(found.get(part), dict):
            update[part] = _bounded(found[part])
    if result.stage is Stage.EXPORT and "exported" not in update and found:
        update["exported"] = _bounded({k: v for k, v in found.items() if not isinstance(v, (dict, list))})
    return before.model_copy(update=update) if update else status.metrics


def artifacts(status: OCRFineTuneStatus, result: StageResult, *, folder: str) -> Artifacts | None:
    """The artifacts with those of a stage, as paths in the workspace."""
    before = status.artifacts or Artifacts()
    known = dict(result.artifacts)
    if result.stage is Stage.PREPARE and "report" in known:
        known["dataReport"] = known.pop("report")
    if isinstance(result.details.get("uri"), str):
        known["uri"] = result.details["uri"]
    update: dict[str, str] = {}
    for field, keys in _ARTIFACTS.items():
        value = next((known[key] for key in keys if known.get(key)), "")
        if value:
            inside = "://" not in value and not value.startswith("/")
            update[field] = f"{folder}/{value}" if inside else value
    return before.model_copy(update=update) if update else status.artifacts


def _bounded(values: dict[str, Any]) -> dict[str, Any]:
    if len(json.dumps(values, default=str)) <= _MAX_METRICS:
        return values
    plain = {key: value for key, value in values.items() if isinstance(value, (int, float, str, bool))}
    note = {"leftOut": "details are in the report"}
    return note if len(json.dumps(plain)) > _MAX_METRICS else plain | note
