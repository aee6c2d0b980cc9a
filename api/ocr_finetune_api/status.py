"""The `status` of an OCRFineTune: what the operator remembers and what people see.

The operator keeps no other memory: everything it has to know after a restart stands here. Unknown fields are ignored on
reading, so that an operator one version back can go on with what a newer one wrote.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from ocr_finetune_api.conditions import Phase
from ocr_finetune_api.exit_codes import FailureClass
from ocr_finetune_api.plan import Stage
from ocr_finetune_api.results import Choice

MAX_ATTEMPTS = 20
MAX_LOG_TAIL_BYTES = 2048
MAX_STATUS_BYTES = 32 * 1024


class StatusModel(BaseModel):
    """Base of all parts of the status: camelCase in YAML, unknown fields ignored, values immutable."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)


class StageState(StrEnum):
    """Where a stage stands."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


class Outcome(StrEnum):
    """How an attempt ended."""

    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    DISRUPTED = "Disrupted"
    SUSPENDED = "Suspended"
    REPEATED = "Repeated"


class Condition(StatusModel):
    """A condition as Kubernetes has them; `kubectl wait --for=condition=…` reads them."""

    type: str = Field(..., max_length=64, description="Which condition.")
    status: str = Field(..., pattern="^(True|False|Unknown)$", description="True, False or Unknown.")
    reason: str = Field("", max_length=128, description="A stable word for programs.")
    message: str = Field("", max_length=4096, description="A sentence for people.")
    last_transition_time: str = Field("", description="When `status` changed.")
    observed_generation: int = Field(0, description="The generation of the spec it speaks of.")


class Resolved(StatusModel):
    """What was pinned when the run was accepted."""

    image: str = Field("", description="Trainer image of all attempts.")
    operator_version: str = Field("", description="Version of the operator that accepted the run.")
    profile: str = Field("", description="The profile whose defaults were used.")
    choices: list[Choice] = Field(default_factory=list, description="What `auto` stood for, and why.")


class RunProgress(StatusModel):
    """How far the current stage has come, as rank 0 said last."""

    stage: Stage | None = Field(None, description="Which stage.")
    activity: str = Field("", description="What it is busy with.")
    epoch: int = Field(0, description="Current epoch, from 1.")
    epochs: int = Field(0, description="Epochs in all.")
    step: int = Field(0, description="Steps done.")
    steps: int = Field(0, description="Steps in all.")
    percent: float = Field(0.0, description="Done, of the stage.")
    eta: str = Field("", description="Time left in the stage.")
    loss: float | None = Field(None, description="Training loss.")
    learning_rate: float | None = Field(None, description="Current learning rate.")
    samples_per_second: float | None = Field(None, description="Throughput of all devices.")
    metric_name: str = Field("", description="What `metric` and `bestMetric` are.")
    metric: float | None = Field(None, description="Last value on the validation set.")
    best_metric: float | None = Field(None, description="Best value on the validation set.")
    checkpoint_step: int = Field(0, description="Step of the newest checkpoint.")
    resumed_from_step: int = Field(0, description="Step that this attempt went on from.")
    message: str = Field("", description="What the stage says itself.")
    updated_at: str = Field("", description="When rank 0 said it.")


class Metrics(StatusModel):
    """Measured on the test set: the base model, the best checkpoint, the exported model."""

    name: str = Field("", description="The metric that decides.")
    optimistic: bool = Field(default=False, description="There is no test set; the validation set was used.")
    base: dict[str, Any] | None = Field(
        None, description="The base model.", json_schema_extra={"x-kubernetes-preserve-unknown-fields": True}
    )
    best: dict[str, Any] | None = Field(
        None, description="The best checkpoint.", json_schema_extra={"x-kubernetes-preserve-unknown-fields": True}
    )
    exported: dict[str, Any] | None = Field(
        None, description="The exported model.", json_schema_extra={"x-kubernetes-preserve-unknown-fields": True}
    )


class StageStatus(StatusModel):
    """Where one stage stands."""

    name: Stage = Field(..., description="Which stage.")
    state: StageState = Field(StageState.PENDING, description="Pending, Running, Succeeded or Failed.")
    attempt: int = Field(0, description="The newest attempt.")
    started_at: str = Field("", description="When its first attempt was made.")
    finished_at: str = Field("", description="When it ended.")
    job: str = Field("", description="The Job of the newest attempt.")
    input_hash: str = Field("", description="What its result depends on.")


class Attempt(StatusModel):
    """One attempt at a stage: one Job."""

    stage: Stage = Field(..., description="Which stage.")
    number: int = Field(..., ge=1, description="From 1, within the stage.")
    job_uid: str = Field("", description="UID of the Job, once it was seen.")
    execution: int = Field(0, description="How often the Job was started; a queue may stop and start it.")
    nodes: int = Field(1, description="Number of pods.")
    scheduled: int = Field(0, description="How many of them found a node, where that ended the attempt.")
    started_at: str = Field("", description="When it was decided on.")
    running_at: str = Field("", description="When all its pods ran first.")
    ended_at: str = Field("", description="When it ended; empty while it goes on.")
    active_seconds: int = Field(0, description="For how long its pods ran.")
    active_since: str = Field("", description="Since when its pods run; empty while they do not.")
    admitted_since: str = Field("", description="Since when it may run but not all of its pods do.")
    outcome: Outcome | None = Field(None, description="How it ended.")
    failure_class: FailureClass | None = Field(None, description="What kind of failure ended it.")
    reason: str = Field("", description="Why, in a word or two.")
    node: str = Field("", description="Where the failure began.")
    resumed_from_step: int = Field(0, description="Step of the checkpoint it went on from.")
    last_step: int = Field(0, description="Last step it was seen at.")
    checkpoint_step: int = Field(0, description="Step of its newest checkpoint.")
    lost_steps: int = Field(0, description="Steps after its newest checkpoint.")


class Failure(StatusModel):
    """Why the run failed, or what its last failed attempt died of."""

    failure_class: FailureClass = Field(..., alias="class", description="What kind of failure.")
    stage: Stage = Field(..., description="In which stage.")
    attempt: int = Field(1, description="In which attempt.")
    rank: int | None = Field(None, description="Which rank failed first.")
    node: str = Field("", description="On which node.")
    pod: str = Field("", description="In which pod.")
    exit_code: int | None = Field(None, description="Its exit code.")
    message: str = Field("", description="What happened.")
    log_tail: str = Field("", description="The last lines of its log.")
    hint: str = Field("", description="What to do.")


class Artifacts(StatusModel):
    """Where the results lie, as paths in the workspace or as addresses."""

    checkpoint: str = Field("", description="The best checkpoint.")
    model: str = Field("", description="The exported model, as PaddleOCR loads it.")
    onnx: str = Field("", description="The exported ONNX model.")
    report: str = Field("", description="The report of the evaluation.")
    data_report: str = Field("", description="The report on the data.")
    uri: str = Field("", description="Where the archive was uploaded to.")


class OCRFineTuneStatus(StatusModel):
    """What the operator knows about a run."""

    phase: Phase = Field(Phase.PENDING, description="Where the run stands, in one word.")
    observed_generation: int = Field(0, description="The generation of the spec that the operator has seen.")
    observed_retry_nonce: int = Field(0, description="The `policy.retryNonce` that the operator has acted on.")
    spec_hash: str = Field("", description="Hash of the spec that the run works from; empty until it is accepted.")
    restarts: int = Field(0, description="Failures that were retried.")
    disruptions: int = Field(0, description="Preemptions, drains and lost nodes; they do not count as restarts.")
    next_attempt_at: str = Field("", description="When the next attempt starts.")
    active_seconds: int = Field(0, description="Running time of all ended attempts together.")
    started_at: str = Field("", description="When the run was accepted.")
    finished_at: str = Field("", description="When the run succeeded or failed.")
    cleaned_up: bool = Field(default=False, description="Its Jobs and pods were removed after their time.")
    claim: str = Field("", description="The claim that holds the workspace.")
    folder: str = Field("", description="The run's folder in the workspace.")
    resolved: Resolved = Field(default_factory=Resolved, description="What was pinned when the run was accepted.")
    conditions: list[Condition] = Field(default_factory=list, description="Conditions, by type.")
    progress: RunProgress | None = Field(None, description="How far the current stage has come.")
    metrics: Metrics | None = Field(None, description="What was measured on the test set.")
    stages: list[StageStatus] = Field(default_factory=list, description="Where each stage stands.")
    attempts: list[Attempt] = Field(default_factory=list, description="The last 20 attempts, oldest first.")
    failure: Failure | None = Field(None, description="Why the run, or its last attempt, failed.")
    artifacts: Artifacts | None = Field(None, description="Where the results lie.")

    def stage(self, stage: Stage) -> StageStatus:
        """Where a stage stands; pending if nothing is known of it."""
        return next((known for known in self.stages if known.name is stage), StageStatus(name=stage))

    def condition(self, kind: str) -> Condition | None:
        """The condition of a type, if it was ever set."""
        return next((known for known in self.conditions if known.type == kind), None)

    def to_dict(self) -> dict[str, Any]:
        """The status as it is written: camelCase, without what is empty."""
        written: dict[str, Any] = _without_empty(self.model_dump(mode="json", by_alias=True))
        return written


def _without_empty(value: Any) -> Any:
    if isinstance(value, dict):
        shrunk = {key: _without_empty(item) for key, item in value.items()}
        return {key: item for key, item in shrunk.items() if item is not None and item not in ("", [], {})}
    if isinstance(value, list):
        return [_without_empty(item) for item in value]
    return value
