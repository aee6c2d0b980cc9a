"""What decisions about an accepted run are made from."""

from __future__ import annotations

from dataclasses import dataclass

from ocr_finetune_api.conditions import ConditionType, Phase
from ocr_finetune_api.plan import Plan, Stage
from ocr_finetune_api.spec import OCRFineTuneSpec
from ocr_finetune_api.status import Attempt
from ocr_finetune_operator import names
from ocr_finetune_operator.reconcile.draft import Draft
from ocr_finetune_operator.reconcile.observation import Need, Observation
from ocr_finetune_operator.reconcile.views import JobView, PodView

PHASE_OF = {
    Stage.PREPARE: Phase.PREPARING,
    Stage.TRAIN: Phase.TRAINING,
    Stage.EVALUATE: Phase.EVALUATING,
    Stage.EXPORT: Phase.EXPORTING,
}

CONDITION_OF = {
    Stage.PREPARE: ConditionType.DATA_READY,
    Stage.TRAIN: ConditionType.TRAINING,
    Stage.EVALUATE: ConditionType.EVALUATED,
    Stage.EXPORT: ConditionType.EXPORTED,
}

# Seconds after which something is looked at again of which no event may tell.
CHECK_EVERY = 5.0

Needs = tuple[Need, ...]


@dataclass(kw_only=True)
class Case:
    """One decision about an accepted run.

    Attributes:
        spec: What it works from.
        plan: Its stages.
    """

    draft: Draft
    observation: Observation
    spec: OCRFineTuneSpec
    plan: Plan

    def jobs(self) -> list[JobView]:
        """The Jobs that belong to this run and not to one of its name before it."""
        return [one for one in self.observation.jobs if one.owner_uid == self.observation.run.uid]

    def pods_of(self, name: str) -> list[PodView]:
        """The pods of a Job."""
        return [one for one in self.observation.pods if one.job == name]

    def job_of(self, attempt: Attempt) -> JobView | None:
        """The Job of an attempt, if it exists."""
        name = self.name_of(attempt)
        return next((one for one in self.jobs() if one.name == name), None)

    def name_of(self, attempt: Attempt) -> str:
        """The name of the Job of an attempt."""
        return names.job(self.observation.run.name, attempt.stage, attempt.number)
