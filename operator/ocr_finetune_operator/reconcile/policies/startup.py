"""The start of an attempt: what its pods wait for, and for how long they may."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ocr_finetune_api.exit_codes import FailureClass
from ocr_finetune_operator.reconcile.policies.failure import Cause, of_class
from ocr_finetune_operator.reconcile.views import PodView

_IMAGE = ("ImagePullBackOff", "ErrImagePull", "ErrImageNeverPull", "ImageInspectError", "RegistryUnavailable")
_CONFIGURATION = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")
_HOPELESS = ("InvalidImageName",)


@dataclass(frozen=True, kw_only=True)
class Start:
    """How far the start of an attempt has come.

    Attributes:
        complete: All pods run, or have run.
        scheduled: How many have found a node.
        reason: Why it is not complete, in a word.
        message: Why, for people.
        hopeless: Waiting longer can't help.
    """

    complete: bool
    scheduled: int
    reason: str = ""
    message: str = ""
    hopeless: bool = False


def look(pods: Sequence[PodView], *, nodes: int) -> Start:
    """Looks at the pods of an attempt that may run."""
    present = [pod for pod in pods if not pod.gone]
    scheduled = sum(1 for pod in present if pod.scheduled)
    waiting = [pod for pod in present if not pod.running and not pod.terminal]
    if len(present) >= nodes and not waiting:
        return Start(complete=True, scheduled=scheduled)
    for pod in waiting:
        if pod.waiting in (*_HOPELESS, *_IMAGE, *_CONFIGURATION):
            message = f"{pod.name}: {pod.waiting}: {pod.waiting_message}"
            return Start(
                complete=False,
                scheduled=scheduled,
                reason=pod.waiting,
                message=message,
                hopeless=pod.waiting in _HOPELESS,
            )
    for pod in waiting:
        if pod.unschedulable:
            message = f"{nodes - scheduled} of {nodes} pods have no node: {pod.unschedulable}"
            return Start(complete=False, scheduled=scheduled, reason="Unschedulable", message=message)
    message = f"{nodes - len(present) + len(waiting)} of {nodes} pods do not run yet"
    return Start(complete=False, scheduled=scheduled, reason="Starting", message=message)


def timed_out(start: Start, *, seconds: float) -> Cause:
    """Why an attempt did not start in time."""
    within = f" (waited {seconds:.0f} s)"
    if start.reason in _IMAGE or start.hopeless:
        failure_class = FailureClass.USER_ERROR if start.hopeless else FailureClass.IMAGE_PULL
    elif start.reason in _CONFIGURATION:
        failure_class = FailureClass.USER_ERROR
    elif start.reason == "Unschedulable":
        failure_class = FailureClass.UNSCHEDULABLE
    else:
        failure_class = FailureClass.INTERNAL
    return of_class(failure_class, reason=start.reason or "NotStarted", message=start.message + within)
