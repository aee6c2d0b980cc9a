"""The chart, rendered by Helm's own library."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import yaml
from helm_python import Chart

CHART = Path(__file__).resolve().parents[2] / "charts" / "ocr-finetune-operator"
RELEASE = "ocrft"
NAMESPACE = "ocr-system"

Manifest = dict[str, Any]


def render(values: dict[str, Any] | None = None, *, chart: Chart | None = None) -> list[Manifest]:
    """Returns the objects of a release; a value that the schema refuses raises ``helm_python.HelmError``."""
    chart = chart or Chart.load(CHART)
    chart.validate_schema(values or {})
    texts = chart.render(values or {}, name=RELEASE, namespace=NAMESPACE)
    return [document for path, text in texts.items() if path.endswith(".yaml") for document in _parse(text)]


@functools.cache
def _parse(text: str) -> list[Manifest]:
    return [document for document in yaml.load_all(text, Loader=yaml.CSafeLoader) if document]


def one(objects: list[Manifest], kind: str, suffix: str = "") -> Manifest:
    """Returns the one object of a kind, whose name ends with ``suffix``."""
    (found,) = (item for item in objects if item["kind"] == kind and item["metadata"]["name"].endswith(suffix))
    return found
