"""A run of `ocrft` on this machine, as tests start it and look at it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ocr_finetune_api import results
from ocr_finetune_api.plan import Stage
from ocr_finetune_api.results import StageResult
from ocr_finetune_api.workspace import Workspace

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "examples" / "digits"


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "ocr_finetune_trainer.cli", *map(str, arguments)]


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}


def serving_environment() -> dict[str, str]:
    """For `paddleocr` by itself, which would ask the hubs of models in the network whether they are there."""
    return environment() | {"PADDLE_PDX_DISABLE_MODEL_SOURCE_CHECK": "True"}


@dataclass(frozen=True)
class Run:
    """A run of a test: its manifest and its files."""

    manifest: Path
    root: Path

    @property
    def workspace(self) -> Workspace:
        name = yaml.safe_load(self.manifest.read_text(encoding="utf-8"))["metadata"]["name"]
        return Workspace(self.root, f"{name}-local")

    def result(self, stage: str) -> StageResult:
        result = results.read(self.workspace.result(Stage(stage)))
        assert result is not None, f"{stage} left no result"
        return result

    def change(self, changes: Mapping[str, Any]) -> None:
        document = yaml.safe_load(self.manifest.read_text(encoding="utf-8"))
        for path, value in changes.items():
            *parents, last = path.split(".")
            place = document["spec"]
            for parent in parents:
                place = place.setdefault(parent, {})
            place[last] = value
        self.manifest.write_text(yaml.safe_dump(document, allow_unicode=True), encoding="utf-8")
