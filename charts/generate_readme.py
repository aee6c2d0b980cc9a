"""Writes the chart's README from Chart.yaml and the comments of values.yaml: ``python charts/generate_readme.py``.

A comment that starts with ``-- `` describes the key below it, nested keys by their path. ``--check`` says whether the
file is current, without writing it.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parent / "ocr-finetune-operator"
_KEY = re.compile(r"^(?P<indent> *)(?P<key>[A-Za-z]+):")
_HEAD = """# {name}

{description}. Version {version}.

    helm install {name} charts/{name} --namespace ocr-finetune --create-namespace

Uninstalling the chart keeps the CustomResourceDefinition and all runs (`crds.keep`); training that is going on goes on,
and an operator that is installed again takes it up. Upgrading does not touch what runs either.

This file is generated from the comments in `values.yaml` by `make generate`.

| Value | Default | What it is |
|---|---|---|
"""


def main(arguments: list[str]) -> int:
    """Writes or checks the file."""
    readme = CHART / "README.md"
    text = render()
    if "--check" in arguments:
        return int(not readme.exists() or readme.read_text(encoding="utf-8") != text)
    readme.write_text(text, encoding="utf-8")
    return 0


def render() -> str:
    """Returns the README's text."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    source = (CHART / "values.yaml").read_text(encoding="utf-8")
    values = yaml.safe_load(source)
    rows = [
        f"| `{path}` | `{json.dumps(lookup(values, path))}` | {description.replace('|', chr(92) + '|')} |"
        for path, description in described(source)
    ]
    return _HEAD.format(**chart) + "\n".join(rows) + "\n"


def described(source: str) -> list[tuple[str, str]]:
    """Returns path and description of every value with a ``-- `` comment, in the file's order."""
    found: list[tuple[str, str]] = []
    path: list[str] = []
    words: list[str] = []
    for line in source.splitlines():
        comment = line.strip()
        if comment.startswith("# -- "):
            words = [comment.removeprefix("# -- ")]
        elif comment.startswith("# ") and words:
            words.append(comment.removeprefix("# "))
        elif match := _KEY.match(line):
            path = [*path[: len(match["indent"]) // 2], match["key"]]
            if words:
                found.append((".".join(path), " ".join(words)))
            words = []
    return found


def lookup(values: Any, path: str) -> Any:
    """Returns the value at a dotted path."""
    for key in path.split("."):
        values = values[key]
    return values


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
