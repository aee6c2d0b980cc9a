"""How an attempt ends, what its end makes of the run, and how the run ends."""

from __future__ import annotations

from ocr_finetune_api.conditions import ConditionType, Phase
from ocr_finetune_api.exit_codes import FailureClass
from ocr_finetune_api.plan import Stage
from ocr_finetune_api.status import MAX_LOG_TAIL_BYTES, Attempt, Failure, Outcome, StageState
from ocr_finetune_operator.reconcile import results
from ocr_finetune_operator.reconcile.case import CONDITION_OF, Case, Needs
from ocr_finetune_operator.reconcile.draft import Delete, Draft
from ocr_finetune_operator.reconcile.observation import Need
from ocr_finetune_operator.reconcile.policies import failure, placement
from ocr_finetune_operator.reconcile.policies.failure import Cause
from ocr_finetune_operator.reconcile.views import JobView, PodView, iso, iso_precise


def complete(case: Case, attempt: Attempt, pods: list[PodView]) -> None:
    """Its Job is complete: takes the result over, or has the stage run again if nobody can read it."""
    draft, stage = case.draft, attempt.stage
    result = results.of_job(pods, stage)
    if result is None:
        draft.end_attempt(Outcome.REPEATED, reason="ResultLost")
        draft.note(
            "ResultLost", f"{stage.value} ended well but its result can't be read; it is run again", warning=True
        )
        return
    draft.attempt(execution=max(attempt.execution, 1))
    draft.end_attempt(Outcome.SUCCEEDED, reason="Succeeded")
    draft.stage(stage, state=StageState.SUCCEEDED, finished_at=iso(draft.now))
    draft.set(
        metrics=results.metrics(draft.status, result),
        artifacts=results.artifacts(draft.status, result, folder=draft.status.folder),
        failure=None,
        next_attempt_at="",
    )
    if result.choices:
        choices = [*draft.status.resolved.choices, *result.choices][-32:]
        draft.set(resolved=draft.status.resolved.model_copy(update={"choices": choices}))
    warnings = f": {'; '.join(result.warnings)}" if result.warnings else ""
    done = {Stage.TRAIN: (False, "Completed")}.get(stage, (True, "Succeeded"))
    draft.condition(CONDITION_OF[stage], done[0], done[1], (result.message + warnings).lstrip(": "))
    draft.note("StageSucceeded", f"{stage.value} succeeded{warnings}", warning=False)


def suspend(case: Case, found: JobView) -> None:
    """Frees its devices; it goes on from its checkpoint when the run is resumed."""
    draft = case.draft
    draft.end_attempt(Outcome.SUSPENDED, reason="Suspended")
    draft.after.append(Delete(kind="Job", name=found.name, uid=found.uid, propagation="Foreground"))


def stop(case: Case, attempt: Attempt, found: JobView) -> Needs:
    """Ends the run because somebody asked for it."""
    cause = failure.of_class(
        FailureClass.STOPPED, reason="Stopped", message="somebody asked for a stop; its last checkpoint is kept"
    )
    case.draft.end_attempt(Outcome.FAILED, reason="Stopped", failure_class=FailureClass.STOPPED)
    case.draft.after.append(Delete(kind="Job", name=found.name, uid=found.uid, propagation="Foreground"))
    fail(case, attempt, cause, log_tail="", hint="raise policy.retryNonce to go on from the last checkpoint")
    return ()


def deleted_by_others(case: Case, attempt: Attempt) -> None:
    """Its Job is gone, and it was not the operator: that is no failure of the run."""
    draft = case.draft
    name = case.name_of(attempt)
    draft.end_attempt(Outcome.DISRUPTED, reason="JobDeleted", failure_class=FailureClass.PREEMPTED)
    draft.set(disruptions=draft.status.disruptions + 1)
    draft.note("JobDeleted", f"Job {name} was deleted, not by the operator; the stage is started again", warning=True)


def changed_by_others(case: Case, found: JobView, what: str) -> None:
    """Its Job is not what it was made as, and what of it can be changed back is not ours to change: it is made anew."""
    draft = case.draft
    draft.end_attempt(Outcome.DISRUPTED, reason="JobChanged", failure_class=FailureClass.PREEMPTED)
    draft.set(disruptions=draft.status.disruptions + 1)
    draft.after.append(Delete(kind="Job", name=found.name, uid=found.uid, propagation="Foreground"))
    message = f"Job {found.name}: {what}, not by the operator; the stage is started again from its checkpoint"
    draft.note("JobChanged", message, warning=True)


def failed(case: Case, attempt: Attempt, cause: Cause, *, found: JobView | None) -> Needs:
    """An attempt failed, or is given up (then its Job `found` is deleted)."""
    draft, spec = case.draft, case.spec
    pod_of = cause.pod
    if pod_of is not None and not pod_of.gone and pod_of.name not in case.observation.facts.logs:
        return (Need(what="log", name=pod_of.name),)
    log_tail = case.observation.facts.logs.get(pod_of.name, "") if pod_of else ""
    document = case.observation.progress.document if case.observation.progress else None
    if document is not None and document.stage is attempt.stage and document.attempt == attempt.number:
        draft.attempt(
            last_step=max(attempt.last_step, document.step),
            checkpoint_step=max(attempt.checkpoint_step, document.checkpoint_step),
            resumed_from_step=document.resumed_from_step,
        )
    outcome = failure.outcome_of(cause.failure_class)
    if cause.failure_class is FailureClass.UNSCHEDULABLE:
        draft.attempt(scheduled=sum(1 for one in case.pods_of(case.name_of(attempt)) if one.scheduled))
    draft.end_attempt(
        outcome, reason=cause.reason, failure_class=cause.failure_class, node=pod_of.node if pod_of else ""
    )
    if found is not None:
        draft.after.append(Delete(kind="Job", name=found.name, uid=found.uid, propagation="Foreground"))
    ended = draft.status.attempts[-1]
    shrinks = placement.could_shrink(spec, ended)
    if not shrinks and not failure.may_retry(
        cause.failure_class, attempt=ended, restarts=draft.status.restarts, max_restarts=spec.policy.max_restarts
    ):
        fail(case, attempt, cause, log_tail=log_tail)
        return ()
    _retry(case, attempt, cause, log_tail=log_tail, shrinks=shrinks)
    return ()


def _retry(case: Case, attempt: Attempt, cause: Cause, *, log_tail: str, shrinks: bool) -> None:
    draft, rules = case.draft, case.observation.rules
    message = f"{attempt.stage.value} attempt {attempt.number}: {cause.reason}: {cause.message}"
    draft.set(failure=_failure(attempt, cause, log_tail=log_tail, hint=cause.hint))
    if shrinks:
        nodes = placement.nodes_for(case.spec, attempt.stage, draft.status.attempts)
        draft.note("Shrunk", f"{message}; goes on with {nodes} nodes", warning=True)
        return
    disrupted = draft.status.attempts[-1].outcome is Outcome.DISRUPTED
    counter = "disruptions" if disrupted else "restarts"
    draft.set(**{counter: getattr(draft.status, counter) + 1})
    of_stage = [one for one in draft.status.attempts if one.stage is attempt.stage]
    wait = failure.back_off(
        of_stage, base=rules.backoff_base, limit=rules.backoff_limit, key=f"{case.observation.run.uid}/{attempt.stage}"
    )
    # The wait counts from the failure itself: what it took to notice is no reason to wait longer.
    since = draft.now - failure.noticed_after(cause, now=draft.now)
    draft.set(next_attempt_at=iso_precise(since + wait))
    draft.note("Disrupted" if disrupted else "AttemptFailed", f"{message}; tries again in {wait:.0f} s", warning=True)


def _failure(attempt: Attempt, cause: Cause, *, log_tail: str, hint: str) -> Failure:
    tail = log_tail.encode()[-MAX_LOG_TAIL_BYTES:].decode(errors="ignore")
    return Failure(
        failure_class=cause.failure_class,
        stage=attempt.stage,
        attempt=attempt.number,
        rank=cause.pod.index if cause.pod else None,
        node=cause.pod.node if cause.pod else "",
        pod=cause.pod.name if cause.pod else "",
        exit_code=cause.exit_code,
        message=cause.message[:MAX_LOG_TAIL_BYTES],
        log_tail=tail,
        hint=hint[:512],
    )


def fail(case: Case, attempt: Attempt, cause: Cause, *, log_tail: str, hint: str = "") -> None:
    """The run has failed for good."""
    draft, stage = case.draft, attempt.stage
    draft.stage(stage, state=StageState.FAILED, finished_at=iso(draft.now))
    draft.set(
        failure=_failure(attempt, cause, log_tail=log_tail, hint=hint or cause.hint),
        finished_at=iso(draft.now),
        next_attempt_at="",
    )
    draft.phase(Phase.FAILED)
    if cause.result is not None:
        draft.set(
            metrics=results.metrics(draft.status, cause.result),
            artifacts=results.artifacts(draft.status, cause.result, folder=draft.status.folder),
        )
    reason = cause.reason if cause.reason.isidentifier() else cause.failure_class.value
    draft.condition(CONDITION_OF[stage], False, reason, cause.message)
    draft.condition(ConditionType.FAILED, True, reason, cause.message)
    draft.condition(ConditionType.COMPLETE, False, "Failed", cause.message)
    draft.note("Failed", f"{stage.value} failed: {cause.message}; {hint or cause.hint}", warning=True)
    draft.decisive()


def succeed(draft: Draft) -> None:
    """The run has succeeded."""
    draft.set(finished_at=iso(draft.now), next_attempt_at="", failure=None)
    draft.phase(Phase.SUCCEEDED)
    draft.condition(ConditionType.COMPLETE, True, "Succeeded", "all stages succeeded")
    draft.condition(ConditionType.FAILED, False, "Succeeded")
    draft.note("Succeeded", f"all stages succeeded; the model is in {draft.status.folder}/export")
    draft.decisive()
