"""What a stage is given and what it gives back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ocr_finetune_api.plan import StagePlan
from ocr_finetune_api.results import Choice
from ocr_finetune_api.run_config import RunConfig
from ocr_finetune_api.spec import OCRFineTuneSpec
from ocr_finetune_api.workspace import Workspace
from ocr_finetune_trainer.telemetry.reporter import Reporter


@dataclass(frozen=True, kw_only=True)
class StageContext:
    """What a stage is given.

    Attributes:
        config: The run configuration.
        workspace: Where the run's files lie.
        planned: The stage as planned, with its input hash.
        reporter: Takes progress and metrics; whoever watches reads them there.
        node_rank: Which node of the gang this is; 0 where there is only one.
    """

    config: RunConfig
    workspace: Workspace
    planned: StagePlan
    reporter: Reporter
    node_rank: int = 0

    @property
    def spec(self) -> OCRFineTuneSpec:
        """The run's spec."""
        return self.config.spec


@dataclass(frozen=True, kw_only=True)
class StageOutcome:
    """What a stage that succeeded gives back; failures are raised as `OCRFineTuneError`.

    Attributes:
        metrics: Numbers by name, JSON values.
        artifacts: What it made, by name, as paths relative to the run's folder.
        choices: What `auto` stood for.
        warnings: What a person should know although the stage succeeded.
        details: Anything else that later stages or reports read, JSON values.
        fingerprint: State of what was read from outside the workspace.
    """

    metrics: dict[str, Any] = field(default_factory=dict)
    artifacts: dict[str, str] = field(default_factory=dict)
    choices: Sequence[Choice] = ()
    warnings: Sequence[str] = ()
    details: dict[str, Any] = field(default_factory=dict)
    fingerprint: str = ""
