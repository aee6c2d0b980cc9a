"""The progress document: what rank 0 serves at `/progress`, and the operator and the progress bar read."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from ocr_finetune_api.plan import Stage
from ocr_finetune_api.spec import ApiModel

SCHEMA_VERSION = 1
MAX_BYTES = 16 * 1024


class Activity(StrEnum):
    """What a stage is busy with; only training and preparing move `step`."""

    STARTING = "starting"
    WAITING = "waiting"
    LOADING = "loading"
    TRAINING = "training"
    EVALUATING = "evaluating"
    CHECKPOINTING = "checkpointing"
    STOPPING = "stopping"
    DONE = "done"


class Progress(ApiModel):
    """How far a stage has come. Times in seconds since the epoch, durations in seconds."""

    schema_version: int = SCHEMA_VERSION
    stage: Stage
    activity: Activity = Activity.STARTING
    attempt: int = 1
    execution: str = ""
    epoch: int = 0
    epochs: int = 0
    step: int = 0
    steps: int = 0
    percent: float = Field(0.0, ge=0.0, le=100.0)
    eta_seconds: float | None = None
    loss: float | None = None
    learning_rate: float | None = None
    samples_per_second: float | None = None
    data_wait: float | None = Field(None, description="Part of a step's time spent waiting for data")
    metric_name: str = ""
    metric: float | None = None
    best_metric: float | None = None
    checkpoint_step: int = 0
    resumed_from_step: int = 0
    message: str = ""
    updated_at: float = 0.0
