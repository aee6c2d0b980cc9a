"""Looks at an attempt whose Job goes on: is it queued, does it start, does it get on, has it taken too long."""

from __future__ import annotations

from collections.abc import Sequence

from ocr_finetune_api.conditions import ConditionType, Phase
from ocr_finetune_api.exit_codes import FailureClass
from ocr_finetune_api.plan import Stage
from ocr_finetune_api.spec import OCRFineTuneSpec
from ocr_finetune_api.status import Attempt, RunProgress
from ocr_finetune_api.values import seconds
from ocr_finetune_operator.reconcile.case import CHECK_EVERY, CONDITION_OF, PHASE_OF
from ocr_finetune_operator.reconcile.draft import Draft
from ocr_finetune_operator.reconcile.observation import Rules
from ocr_finetune_operator.reconcile.policies import progress as progress_policy
from ocr_finetune_operator.reconcile.policies import startup
from ocr_finetune_operator.reconcile.policies.failure import Cause, of_class
from ocr_finetune_operator.reconcile.policies.progress import Pulled
from ocr_finetune_operator.reconcile.views import JobView, PodView, iso, timestamp


def look(
    draft: Draft,
    *,
    spec: OCRFineTuneSpec,
    attempt: Attempt,
    found: JobView,
    pods: Sequence[PodView],
    progress: Pulled | None,
    rules: Rules,
    waits_for: str = "",
) -> Cause | None:
    """Looks at an attempt that goes on; `waits_for` is what its queue says, if it has one that says something.

    Returns:
        Why it has to be given up; None if it may go on.
    """
    if found.suspended or found.started is None:
        if found.suspended:
            _queued(draft, attempt, found, waits_for=waits_for)
            draft.within(rules.recheck_interval)
        else:
            draft.within(CHECK_EVERY)
        return None
    attempt = _admitted(draft, attempt, found)
    over = _deadline(draft, spec, attempt)
    if over is not None:
        return over
    start = startup.look(pods, nodes=found.parallelism)
    if not attempt.running_at or not attempt.active_since:
        if start.complete:
            attempt = _running(draft, attempt)
        else:
            return _starting(draft, spec, attempt, start)
    return _training(draft, spec=spec, attempt=attempt, progress=progress, rules=rules)


def deadline(spec: OCRFineTuneSpec) -> Cause:
    """The end of a run that has run for too long."""
    cause = of_class(
        FailureClass.STOPPED,
        reason="DeadlineExceeded",
        message=f"all attempts together ran for longer than policy.activeDeadline ({spec.policy.active_deadline})",
    )
    return Cause(
        failure_class=FailureClass.USER_ERROR,
        reason=cause.reason,
        message=cause.message,
        hint="raise policy.activeDeadline, then policy.retryNonce: it goes on from the last checkpoint",
    )


def _queued(draft: Draft, attempt: Attempt, found: JobView, *, waits_for: str) -> None:
    """The queue has not admitted the Job, or has taken its devices back; no clock runs."""
    if attempt.active_since or attempt.admitted_since:
        active = attempt.active_seconds
        if attempt.active_since:
            active += int(draft.now - (timestamp(attempt.active_since) or draft.now))
        attempt = draft.attempt(active_seconds=active, active_since="", admitted_since="", running_at="")
        draft.set(disruptions=draft.status.disruptions + 1)
        draft.note("Preempted", f"the queue took the devices of {attempt.stage.value} back", warning=True)
        draft.decisive()
    draft.phase(Phase.QUEUED)
    reason = "Queued" if attempt.execution == 0 else "Preempted"
    if found.managed_by:
        message = f"its Job is managed by {found.managed_by}, which is not supported: name a queue of this cluster"
        if draft.condition(ConditionType.ADMITTED, False, "Unsupported", message):
            draft.note("Unsupported", message, warning=True)
        return
    message = f"waits for its queue: {waits_for}" if waits_for else "waits for its queue"
    draft.condition(ConditionType.ADMITTED, False, reason, message)


def _admitted(draft: Draft, attempt: Attempt, found: JobView) -> Attempt:
    since = iso(found.started or draft.now)
    if attempt.admitted_since != since:
        # Each start of the Job is another execution of the attempt.
        attempt = draft.attempt(admitted_since=since, execution=attempt.execution + 1, active_since="", running_at="")
        draft.phase(PHASE_OF[attempt.stage])
        draft.condition(ConditionType.ADMITTED, True, "Admitted", f"{attempt.stage.value} may run")
    return attempt


def _deadline(draft: Draft, spec: OCRFineTuneSpec, attempt: Attempt) -> Cause | None:
    limit = seconds(spec.policy.active_deadline)
    if not limit or not attempt.active_since:
        return None
    since = timestamp(attempt.active_since) or draft.now
    left = limit - draft.status.active_seconds - attempt.active_seconds - (draft.now - since)
    if left <= 0:
        return deadline(spec)
    draft.within(left)
    return None


def _starting(draft: Draft, spec: OCRFineTuneSpec, attempt: Attempt, start: startup.Start) -> Cause | None:
    limit = seconds(spec.policy.startup_timeout)
    left = limit - (draft.now - (timestamp(attempt.admitted_since) or draft.now))
    kind = CONDITION_OF[attempt.stage]
    if start.hopeless or left <= 0:
        return startup.timed_out(start, seconds=limit - left)
    warns = start.reason != "Starting"
    if warns and draft.condition(kind, False, start.reason, start.message):
        draft.note(start.reason, start.message, warning=True)
    draft.within(left)
    return None


def _running(draft: Draft, attempt: Attempt) -> Attempt:
    now = iso(draft.now)
    attempt = draft.attempt(running_at=now, active_since=now)
    running = attempt.stage is Stage.TRAIN
    draft.condition(CONDITION_OF[attempt.stage], running, "Running", f"attempt {attempt.number} runs")
    return attempt


def _training(
    draft: Draft, *, spec: OCRFineTuneSpec, attempt: Attempt, progress: Pulled | None, rules: Rules
) -> Cause | None:
    draft.within(rules.progress_interval)
    if progress is None or progress.at == 0.0:
        return None
    if not progress.reachable:
        draft.condition(ConditionType.PROGRESS_AVAILABLE, False, "Unreachable", progress.error)
        return None
    document = progress.document
    if document is None or document.stage is not attempt.stage or document.attempt != attempt.number:
        return None
    draft.condition(ConditionType.PROGRESS_AVAILABLE, True, "Pulled")
    new = progress_policy.shown(document)
    if _differs(draft.status.progress, new):
        draft.set(progress=new)
    draft.attempt(
        last_step=document.step,
        checkpoint_step=document.checkpoint_step,
        resumed_from_step=document.resumed_from_step,
    )
    waited = draft.now - (timestamp(attempt.running_at) or draft.now)
    if progress_policy.waiting_for_peers(progress):
        left = seconds(spec.policy.rendezvous_timeout) - waited
        if left <= 0:
            message = f"all pods run, but the ranks have not met within {spec.policy.rendezvous_timeout}"
            return of_class(FailureClass.RENDEZVOUS, reason="RendezvousTimeout", message=message)
        draft.within(left)
    limit = seconds(spec.policy.stall_timeout)
    stalled = progress_policy.stalled_for(progress)
    if limit and stalled >= limit:
        message = f"no step for {stalled:.0f} s at step {document.step}"
        draft.condition(ConditionType.STALLED, True, "NoStep", message)
        return of_class(FailureClass.STALLED, reason="Stalled", message=message)
    if limit and stalled:
        draft.within(limit - stalled)
    if draft.status.condition(ConditionType.STALLED) is not None:
        draft.condition(ConditionType.STALLED, False, "GetsOn")
    return None


def _differs(old: RunProgress | None, new: RunProgress) -> bool:
    """Whether people would see a difference; the time of the document alone is none."""
    return old is None or old.model_copy(update={"updated_at": ""}) != new.model_copy(update={"updated_at": ""})
