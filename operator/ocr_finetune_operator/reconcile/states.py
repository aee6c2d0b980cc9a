"""The phases of a run, and what leads from one to another: what the operator may write, and what the picture shows."""

from __future__ import annotations

from collections.abc import Mapping

from ocr_finetune_api.conditions import Phase

_STAGES = (Phase.PREPARING, Phase.TRAINING, Phase.EVALUATING, Phase.EXPORTING)


def _transitions() -> dict[tuple[Phase, Phase], str]:
    found: dict[tuple[Phase, Phase], str] = {
        (Phase.PENDING, Phase.SUSPENDED): "policy.suspend",
        (Phase.PENDING, Phase.FAILED): "a stop, or a deadline",
        (Phase.EXPORTING, Phase.SUCCEEDED): "the last stage succeeded",
        (Phase.QUEUED, Phase.SUSPENDED): "policy.suspend",
        (Phase.QUEUED, Phase.FAILED): "a stop",
        (Phase.SUSPENDED, Phase.FAILED): "a stop",
        (Phase.FAILED, Phase.PENDING): "policy.retryNonce was raised",
        (Phase.FAILED, Phase.SUSPENDED): "policy.retryNonce was raised while policy.suspend was set",
        (Phase.PENDING, Phase.SUCCEEDED): "nothing is left to do",
        (Phase.SUSPENDED, Phase.SUCCEEDED): "nothing is left to do",
        (Phase.QUEUED, Phase.SUCCEEDED): "the last stage succeeded",
    }
    for stage in _STAGES:
        found[Phase.PENDING, stage] = "accepted, or retried at this stage"
        found[Phase.FAILED, stage] = "policy.retryNonce was raised"
        found[stage, Phase.QUEUED] = "its queue has not admitted the Job, or took it back"
        found[Phase.QUEUED, stage] = "the queue admitted the Job"
        found[stage, Phase.SUSPENDED] = "policy.suspend"
        found[Phase.SUSPENDED, stage] = "resumed"
        found[stage, Phase.FAILED] = "a failure that is final"
        # A short stage may begin and end between two looks; a changed spec goes back to the stage it changes.
        for other in _STAGES:
            if other is not stage:
                found[stage, other] = "the stage before it succeeded"
        found[stage, Phase.SUCCEEDED] = "the last stage succeeded"
    return found


TRANSITIONS: Mapping[tuple[Phase, Phase], str] = _transitions()


def allowed(before: str, after: Phase) -> bool:
    """Whether a phase may follow another; any may follow none."""
    if not before or before == after.value or before not in Phase.__members__.values():
        return True
    return (Phase(before), after) in TRANSITIONS
