"""Why a gang failed, and what follows from it.

All ranks of a gang end together, most of them because of the one that failed first. The root cause is looked for in the
order of how certain the evidence is.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from ocr_finetune_api.exit_codes import ExitCode, FailureClass, class_of
from ocr_finetune_api.results import StageResult
from ocr_finetune_api.results import parse as parse_result
from ocr_finetune_api.status import Attempt, Outcome
from ocr_finetune_operator.reconcile.views import PodView


class Handling(StrEnum):
    """What follows from a failure."""

    FAIL = "fail"
    RETRY = "retry"
    RETRY_IF_IT_GOT_ON = "retry if it got on"
    DISRUPTION = "disruption"


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What is known of a class of failures.

    Attributes:
        handling: What follows.
        meaning: What it means, for the documentation.
        hint: What a person can do.
    """

    handling: Handling
    meaning: str
    hint: str


RULES: Mapping[FailureClass, Rule] = {
    FailureClass.USER_ERROR: Rule(
        handling=Handling.FAIL,
        meaning="The manifest asks for something that cannot be.",
        hint="correct the manifest and make a new OCRFineTune; another attempt would end the same way",
    ),
    FailureClass.DATA: Rule(
        handling=Handling.FAIL,
        meaning="The labelled pictures cannot be used, or cannot be found.",
        hint="`kubectl ocrft report NAME` shows every problem with the data; correct it, then raise policy.retryNonce",
    ),
    FailureClass.OUT_OF_MEMORY: Rule(
        handling=Handling.RETRY_IF_IT_GOT_ON,
        meaning="A container went over its memory limit. It is tried again only if the attempt had got further than "
        "the one before.",
        hint="raise pods.resources.train.limits.memory, or lower training.batchSize or training.workers; then raise "
        "policy.retryNonce",
    ),
    FailureClass.DEVICE: Rule(
        handling=Handling.RETRY,
        meaning="A device is absent, broken or out of its own memory.",
        hint="look at the node's devices; a batch that does not fit needs a smaller training.batchSize",
    ),
    FailureClass.STORAGE: Rule(
        handling=Handling.RETRY,
        meaning="The workspace is full, failing or cannot be written.",
        hint="free or enlarge the workspace's claim, then raise policy.retryNonce",
    ),
    FailureClass.NODE_LOST: Rule(
        handling=Handling.DISRUPTION,
        meaning="A node died or was taken away.",
        hint="nothing to do: it goes on from the newest checkpoint on other nodes",
    ),
    FailureClass.PREEMPTED: Rule(
        handling=Handling.DISRUPTION,
        meaning="Pods were evicted, preempted or deleted: a drain, a more important pod, a person.",
        hint="nothing to do: it goes on from the newest checkpoint",
    ),
    FailureClass.STALLED: Rule(
        handling=Handling.RETRY,
        meaning="No step was made for policy.stallTimeout.",
        hint="a rank hangs: look at its log; raise policy.stallTimeout if a step may take that long",
    ),
    FailureClass.RENDEZVOUS: Rule(
        handling=Handling.RETRY,
        meaning="The ranks did not meet, or one lost another.",
        hint="look whether pods can reach each other on all ports (network policies, service meshes)",
    ),
    FailureClass.IMAGE_PULL: Rule(
        handling=Handling.RETRY,
        meaning="The trainer's image could not be pulled.",
        hint="correct pods.image or pods.imagePullSecrets while the run is suspended",
    ),
    FailureClass.UNSCHEDULABLE: Rule(
        handling=Handling.RETRY,
        meaning="Not all pods found a node within policy.startupTimeout. With distributed.minNodes below nodes it goes "
        "on with fewer nodes.",
        hint="free devices, lower distributed.nodes or devicesPerNode, set distributed.minNodes, or use a queue",
    ),
    FailureClass.DIVERGED: Rule(
        handling=Handling.FAIL,
        meaning="Training diverged, and going back did not help.",
        hint="lower training.learningRate, or look at the data for wrong labels",
    ),
    FailureClass.GATE: Rule(
        handling=Handling.FAIL,
        meaning="The new model is not good enough for evaluation.gate.",
        hint="`kubectl ocrft report NAME` shows where it errs; more data or epochs help, or a new run with a lower gate",
    ),
    FailureClass.STOPPED: Rule(
        handling=Handling.DISRUPTION,
        meaning="The trainer was told to stop, and saved a checkpoint.",
        hint="nothing to do: it goes on from the checkpoint",
    ),
    FailureClass.INTERNAL: Rule(
        handling=Handling.RETRY,
        meaning="The trainer crashed, or was killed without a reason that Kubernetes knows.",
        hint="the last lines of the log say where; report it if they point to a mistake of the program",
    ),
}

# A pod that ended longer ago is one of a node whose clock is wrong.
_LONGEST_NOTICE = 60.0
_AFTER_A_CHECKPOINT = 1 / 3
_DISRUPTIONS: Mapping[str, tuple[FailureClass, str]] = {
    "PreemptionByScheduler": (FailureClass.PREEMPTED, "Preempted"),
    "EvictionByEvictionAPI": (FailureClass.PREEMPTED, "Evicted"),
    "TerminationByKubelet": (FailureClass.PREEMPTED, "EvictedByKubelet"),
    "DeletionByTaintManager": (FailureClass.NODE_LOST, "NodeLost"),
    "DeletionByPodGC": (FailureClass.NODE_LOST, "NodeLost"),
}
# Ends that follow from another rank's end.
_CONSEQUENCES = (ExitCode.PEER_UNAVAILABLE, ExitCode.STOPPED)


@dataclass(frozen=True, kw_only=True)
class Cause:
    """Why an attempt failed.

    Attributes:
        pod: Where it began; None if no pod tells.
        result: What the trainer said itself.
    """

    failure_class: FailureClass
    reason: str
    message: str
    hint: str
    pod: PodView | None = None
    result: StageResult | None = None

    @property
    def exit_code(self) -> int | None:
        """What the trainer says that it ended with, else what its container did."""
        if self.result is not None:
            return self.result.exit_code
        return self.pod.exit_code if self.pod else None


def root_cause(pods: Sequence[PodView], *, nodes: int) -> Cause:
    """Finds why a gang failed.

    Args:
        pods: All pods of the Job that are known, also those that are gone.
        nodes: How many there should have been.
    """
    disrupted = [pod for pod in pods if pod.disruption and pod.exit_code != 0]
    if disrupted:
        pod = min(disrupted, key=_when)
        failure_class, reason = _DISRUPTIONS.get(pod.disruption, (FailureClass.PREEMPTED, pod.disruption))
        return _cause(failure_class, reason, pod.disruption_message or f"{pod.name}: {pod.disruption}", pod)
    failed = [pod for pod in pods if pod.failed and not _was_deleted(pod)]
    if not failed:
        return _cause(FailureClass.PREEMPTED, "PodDeleted", "its pods were deleted, not by the operator", _first(pods))
    out_of_memory = [pod for pod in failed if pod.exit_reason == "OOMKilled"]
    if out_of_memory:
        pod = min(out_of_memory, key=_when)
        return _cause(
            FailureClass.OUT_OF_MEMORY, "OOMKilled", f"{pod.name}: a container went over its memory limit", pod
        )
    own = [(pod, result) for pod in failed if (result := _own_word(pod)) is not None]
    if own:
        return _told(*min(own, key=lambda pair: _when(pair[0])), pods=pods)
    crashed = [pod for pod in failed if pod.exit_code not in _CONSEQUENCES]
    pod = min(crashed or failed, key=_when)
    if not crashed:
        return _follow_up(pod, pods, nodes=nodes)
    code = pod.exit_code
    ended = f"exit code {code}" if code is not None else (pod.exit_reason or "no exit code")
    message = f"{pod.name} ended with {ended}" + (f": {_last_line(pod.exit_message)}" if pod.exit_message else "")
    return _cause(class_of(code) if code is not None else FailureClass.INTERNAL, f"Exit{code}", message, pod)


def _follow_up(pod: PodView, pods: Sequence[PodView], *, nodes: int) -> Cause:
    """Every rank only lost the others: one of them was never there, or nobody knows."""
    result = parse_result(pod.exit_message) if pod.exit_message else None
    started = sum(1 for one in pods if one.scheduled and (one.running or one.exit_code is not None))
    if pod.exit_code == ExitCode.PEER_UNAVAILABLE and started < nodes:
        message = f"{nodes - started} of {nodes} pods never ran; the others gave up waiting"
        return _cause(FailureClass.UNSCHEDULABLE, "PeerNeverRan", message, pod, result)
    if result is not None:
        return _told(pod, result, pods=pods)
    return _cause(class_of(pod.exit_code or 0), f"Exit{pod.exit_code}", f"{pod.name} lost its peers", pod)


def _told(pod: PodView, result: StageResult, *, pods: Sequence[PodView]) -> Cause:
    # All nodes of a gang end with the same verdict; it names the one where it began.
    pod = next((one for one in pods if one.index == result.rank), pod)
    failure_class = result.failure_class or class_of(result.exit_code)
    message = result.message or f"{pod.name} ended with exit code {result.exit_code}"
    return Cause(
        failure_class=failure_class,
        reason=failure_class.value,
        message=message,
        hint=result.hint or RULES[failure_class].hint,
        pod=pod,
        result=result,
    )


def _cause(
    failure_class: FailureClass, reason: str, message: str, pod: PodView | None, result: StageResult | None = None
) -> Cause:
    return Cause(
        failure_class=failure_class,
        reason=reason,
        message=message,
        hint=RULES[failure_class].hint,
        pod=pod,
        result=result,
    )


def of_class(failure_class: FailureClass, *, reason: str, message: str, pod: PodView | None = None) -> Cause:
    """A cause that the operator found itself."""
    return _cause(failure_class, reason, message, pod)


def _own_word(pod: PodView) -> StageResult | None:
    """What the trainer said about a failure of its own; None if it only lost the others or said nothing."""
    result = parse_result(pod.exit_message) if pod.exit_message else None
    if result is None or result.succeeded or result.exit_code in _CONSEQUENCES:
        return None
    return result


def _was_deleted(pod: PodView) -> bool:
    """Whether a pod ended because it was deleted."""
    if pod.deleted_at is None:
        return pod.gone and pod.exit_code is None
    return True


def _when(pod: PodView) -> tuple[float, int]:
    return (pod.exited_at if pod.exited_at is not None else float("inf"), pod.index)


def _first(pods: Sequence[PodView]) -> PodView | None:
    return min(pods, key=_when) if pods else None


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip()[:300] if lines else ""


def outcome_of(failure_class: FailureClass) -> Outcome:
    """How an attempt counts that failed in this way."""
    disruption = RULES[failure_class].handling is Handling.DISRUPTION
    return Outcome.DISRUPTED if disruption else Outcome.FAILED


def may_retry(failure_class: FailureClass, *, attempt: Attempt, restarts: int, max_restarts: int) -> bool:
    """Whether another attempt makes sense and is allowed.

    Args:
        failure_class: Why it failed.
        attempt: The attempt that failed.
        restarts: Failures that were retried so far; disruptions don't count.
        max_restarts: How many may be.
    """
    match RULES[failure_class].handling:
        case Handling.FAIL:
            return False
        case Handling.DISRUPTION:
            return True
        case Handling.RETRY_IF_IT_GOT_ON:
            return _got_on(attempt) and restarts < max_restarts
        case Handling.RETRY:
            return restarts < max_restarts


def back_off(attempts: Sequence[Attempt], *, base: float, limit: float, key: str) -> float:
    """Seconds until the next attempt: doubles with each failure in a row that brought no checkpoint, ± 50 %.

    An attempt that did save one is no sign of a crash loop: after it, a third of the first wait is enough.

    Args:
        attempts: The attempts at the stage so far, oldest first.
        base: The first wait after an attempt that brought nothing.
        limit: The longest one, before the spread.
        key: Fixes the spread, so that a decision made twice is the same.
    """
    row = 0
    for attempt in reversed(attempts):
        if attempt.outcome not in (Outcome.FAILED, Outcome.DISRUPTED):
            break
        row += 1
        if _got_on(attempt):
            break
    first = base * _AFTER_A_CHECKPOINT if row and _got_on(attempts[-1]) else base
    spread = random.Random(f"{key}/{len(attempts)}").uniform(0.5, 1.5)
    return float(min(first * 2 ** max(row - 1, 0), limit) * spread)


def _got_on(attempt: Attempt) -> bool:
    return attempt.checkpoint_step > attempt.resumed_from_step


def noticed_after(cause: Cause, *, now: float) -> float:
    """For how many seconds the pod that failed had ended; 0 if nobody knows, or if its node's clock is wrong."""
    ended = cause.pod.exited_at if cause.pod else None
    return now - ended if ended is not None and now - _LONGEST_NOTICE <= ended <= now else 0.0
