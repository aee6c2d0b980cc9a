"""Which metrics dashboards and alerts use."""

from __future__ import annotations

import json
import re
from typing import Any

import yaml
from charts import CHART

ALERTS = CHART / "files" / "alerts" / "alerts.yaml"
DASHBOARDS = CHART / "files" / "dashboards"
_METRIC = re.compile(r"\b(?:ocrft|ocrfinetune)_[a-z_]+")


def rules() -> list[dict[str, Any]]:
    """Returns the alerts."""
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def queries() -> dict[str, str]:
    """Returns every query of every dashboard, by dashboard, panel and letter."""
    found = {}
    for file in sorted(DASHBOARDS.glob("*.json")):
        for panel in json.loads(file.read_text())["panels"]:
            for target in panel.get("targets", []):
                found[f"{file.stem}/{panel['title']}/{target['refId']}"] = target["expr"]
    return found


def used() -> set[str]:
    """Returns the names of all of our series in use."""
    expressions = [*queries().values(), *(rule["expr"] for rule in rules())]
    return {name for expression in expressions for name in _METRIC.findall(expression)}
