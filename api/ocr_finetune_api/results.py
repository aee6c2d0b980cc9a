"""Result documents: what a stage leaves behind, whole in the workspace and short in the termination message."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from ocr_finetune_api.exit_codes import ExitCode, FailureClass
from ocr_finetune_api.plan import Stage, StagePlan, content_hash
from ocr_finetune_api.spec import ApiModel

SCHEMA_VERSION = 1
SHORT_FORM_BYTES = 3072


class Choice(ApiModel):
    """A value that `auto` stood for, and why."""

    name: str
    value: str
    reason: str


class StageResult(ApiModel):
    """How a stage ended."""

    schema_version: int = SCHEMA_VERSION
    stage: Stage
    input_hash: str
    exit_code: int = int(ExitCode.OK)
    failure_class: FailureClass | None = None
    message: str = ""
    hint: str = ""
    problems: list[str] = Field(default_factory=list)
    warnings: list[str] = Field(default_factory=list)
    metrics: dict[str, Any] = Field(default_factory=dict)
    artifacts: dict[str, str] = Field(default_factory=dict, description="paths relative to the run's folder")
    choices: list[Choice] = Field(default_factory=list)
    details: dict[str, Any] = Field(default_factory=dict)
    fingerprint: str = Field("", description="state of what was read from outside the workspace")
    attempt: int = 1
    execution: str = ""
    rank: int = Field(0, description="node of the gang that tells, or where a failure began")
    started_at: str = ""
    finished_at: str = ""

    @property
    def succeeded(self) -> bool:
        """Whether the stage did what it is for."""
        return self.exit_code == ExitCode.OK

    @property
    def output_hash(self) -> str:
        """Identifies what came out, so that the next stage runs again when that has changed."""
        values = self.model_dump(mode="json", include={"input_hash", "metrics", "artifacts", "details"})
        return content_hash(values)

    def to_json(self) -> str:
        """The whole document."""
        return json.dumps(self.model_dump(mode="json", by_alias=True), ensure_ascii=False, indent=2) + "\n"

    def short_form(self) -> str:
        """The document in at most `SHORT_FORM_BYTES` bytes: what is long is left out, and said to be."""
        values = self.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        values["schemaVersion"] = self.schema_version
        for dropped in ((), ("details",), ("choices",), ("warnings",), ("problems",), ("artifacts",), ("metrics",)):
            for key in dropped:
                if values.pop(key, None) is not None:
                    values["shortened"] = True
            text = json.dumps(values, ensure_ascii=False, separators=(",", ":"))
            if len(text.encode()) <= SHORT_FORM_BYTES:
                return text
        for key in ("message", "hint"):
            values[key] = str(values.get(key, ""))[:300]
        return json.dumps(values, ensure_ascii=False, separators=(",", ":"))


def write(result: StageResult, path: Path) -> None:
    """Writes a result document whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with aside.open("w", encoding="utf-8") as file:
            file.write(result.to_json())
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def parse(text: str) -> StageResult | None:
    """Reads a result document in its whole or short form; None if it is none that this version knows."""
    try:
        values = json.loads(text)
        if not isinstance(values, dict):
            return None
        values.pop("shortened", None)
        return StageResult.model_validate(values)
    except (json.JSONDecodeError, ValidationError):
        return None


def input_hash(planned: StagePlan, earlier: StageResult | None) -> str:
    """Identifies all that a stage's result depends on: the spec, and what came out of the stage before it.

    Args:
        planned: The stage.
        earlier: The result of the stage before it; None for the first.
    """
    return planned.input_hash if earlier is None else content_hash([planned.input_hash, earlier.output_hash])


def read(path: Path) -> StageResult | None:
    """Reads a result document; None if there is none, or none that can be trusted."""
    try:
        return parse(path.read_text(encoding="utf-8"))
    except OSError:
        return None
