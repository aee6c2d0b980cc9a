"""From a spec to the stages that do it: which stages, in what order, on what, and what each one depends on.

Pure: no clock, environment, network or disk. Both engines run the same plan.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # Building the models of the spec takes a fifth of a second, which `ocrft --help` would feel.
    from ocr_finetune_api.spec import OCRFineTuneSpec


class Stage(StrEnum):
    """The stages of a run, in their order."""

    PREPARE = "prepare"
    TRAIN = "train"
    EVALUATE = "evaluate"
    EXPORT = "export"


STAGES: tuple[Stage, ...] = tuple(Stage)

# Which parts of the spec decide the result of a stage. What is not named here (queues, pods, deadlines, the number of
# nodes) may change without a stage having to run again.
_INPUTS: Mapping[Stage, tuple[str, ...]] = {
    Stage.PREPARE: ("dataset", "model.name", "model.pretrained", "model.dictionary", "model.max_text_length",
                    "evaluation.guard", "evaluation.end_to_end"),
    Stage.TRAIN: ("model", "training", "evaluation.metric"),
    Stage.EVALUATE: ("evaluation",),
    Stage.EXPORT: ("export",),
}  # fmt: skip

# How training is watched and saved does not change what comes out of it.
_NO_INFLUENCE: Mapping[str, frozenset[str]] = {"training": frozenset({"checkpoint", "workers", "time_budget"})}


@dataclass(frozen=True, kw_only=True)
class StagePlan:
    """One stage as an engine has to run it.

    Attributes:
        stage: Which stage.
        nodes: How many processes of `ocrft stage` run at once, one a node.
        devices_per_node: How many devices each of them uses.
        input_hash: Identifies everything in the spec that its result depends on, earlier stages included.
    """

    stage: Stage
    nodes: int
    devices_per_node: int
    input_hash: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The stages of a run in their order."""

    stages: tuple[StagePlan, ...]

    def __getitem__(self, stage: Stage) -> StagePlan:
        return next(planned for planned in self.stages if planned.stage is stage)


def plan(spec: OCRFineTuneSpec) -> Plan:
    """Plans a run."""
    stages: list[StagePlan] = []
    earlier = ""
    for stage in STAGES:
        earlier = _input_hash(spec, stage, earlier=earlier)
        distributed = stage is Stage.TRAIN
        stages.append(
            StagePlan(
                stage=stage,
                nodes=spec.distributed.nodes if distributed else 1,
                devices_per_node=spec.distributed.devices_per_node if distributed else 1,
                input_hash=earlier,
            )
        )
    return Plan(stages=tuple(stages))


def _input_hash(spec: OCRFineTuneSpec, stage: Stage, *, earlier: str) -> str:
    inputs: dict[str, Any] = {"stage": stage.value, "earlier": earlier}
    for path in _INPUTS[stage]:
        value: Any = spec
        for part in path.split("."):
            value = getattr(value, part)
        if hasattr(value, "model_dump"):
            value = value.model_dump(mode="json", exclude=set(_NO_INFLUENCE.get(path, frozenset())))
        elif isinstance(value, list):
            value = [item.model_dump(mode="json") for item in value]
        inputs[path] = value
    return content_hash(inputs)


def content_hash(value: Any) -> str:
    """SHA-256 (hexadecimal, 16 digits) of a JSON value, independent of the order of keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
