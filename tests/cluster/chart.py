"""What the chart says about monitoring."""

from __future__ import annotations

import json
from typing import Any

import yaml
from cluster_testing.cluster import CHART
from cluster_testing.release import RELEASE
from helm_python import Chart


def monitors(*, namespace: str) -> list[dict[str, Any]]:
    """Returns the ServiceMonitor and the PodMonitor of the release."""
    values = {"monitoring": {"serviceMonitor": {"enabled": True}, "podMonitor": {"enabled": True}}}
    texts = Chart.load(CHART).render(values, name=RELEASE, namespace=namespace)
    files = [text for path, text in texts.items() if path.endswith(".yaml")]
    documents = [one for text in files for one in yaml.safe_load_all(text) if one]
    return [one for one in documents if one["kind"] in {"ServiceMonitor", "PodMonitor"}]


def panels() -> dict[str, str]:
    """Returns every query of every dashboard, by dashboard, panel and letter."""
    return {
        f"{file.stem}/{panel['title']}/{target['refId']}": target["expr"]
        for file in sorted((CHART / "files" / "dashboards").glob("*.json"))
        for panel in json.loads(file.read_text())["panels"]
        for target in panel.get("targets", [])
    }
