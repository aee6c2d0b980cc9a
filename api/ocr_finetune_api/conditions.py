"""Phases, condition types and stable reasons: the vocabulary of the status."""

from __future__ import annotations

from enum import StrEnum


class Phase(StrEnum):
    """Where a run stands, in one word."""

    PENDING = "Pending"
    QUEUED = "Queued"
    PREPARING = "Preparing"
    TRAINING = "Training"
    EVALUATING = "Evaluating"
    EXPORTING = "Exporting"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    SUSPENDED = "Suspended"


class ConditionType(StrEnum):
    """What can be waited for with `kubectl wait --for=condition=…`."""

    ACCEPTED = "Accepted"
    DATA_READY = "DataReady"
    ADMITTED = "Admitted"
    TRAINING = "Training"
    EVALUATED = "Evaluated"
    EXPORTED = "Exported"
    PROGRESS_AVAILABLE = "ProgressAvailable"
    STALLED = "Stalled"
    COMPLETE = "Complete"
    FAILED = "Failed"
    SUSPENDED = "Suspended"
