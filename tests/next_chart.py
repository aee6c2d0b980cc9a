"""A later version of the chart, as an upgrade meets it: other version, a resource with one more field."""

from __future__ import annotations

import shutil
from pathlib import Path

import yaml

VERSION = "99.0.0"
NEW_FIELD = "fieldOfALaterVersion"


def next_chart(chart: Path, folder: Path) -> Path:
    """Writes a later version of a chart into a folder.

    Args:
        chart: The chart.
        folder: An empty folder.
    """
    later = folder / chart.name
    shutil.copytree(chart, later)
    metadata = yaml.safe_load((later / "Chart.yaml").read_text())
    (later / "Chart.yaml").write_text(yaml.safe_dump(metadata | {"version": VERSION}))
    crd = yaml.safe_load((later / "files" / "crd.yaml").read_text())
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    schema["properties"]["spec"]["properties"][NEW_FIELD] = {"type": "string"}
    (later / "files" / "crd.yaml").write_text(yaml.safe_dump(crd, sort_keys=False))
    return later
