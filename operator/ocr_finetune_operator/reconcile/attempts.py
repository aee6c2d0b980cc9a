"""The life of attempts: begin one, watch it, end it, and go on with what follows from its end."""

from __future__ import annotations

from dataclasses import dataclass

from ocr_finetune_api.conditions import ConditionType, Phase
from ocr_finetune_api.exit_codes import FailureClass
from ocr_finetune_api.plan import STAGES, Plan, Stage, plan
from ocr_finetune_api.spec import OCRFineTuneSpec
from ocr_finetune_api.status import MAX_LOG_TAIL_BYTES, Attempt, Failure, Outcome, StageState
from ocr_finetune_api.values import seconds
from ocr_finetune_operator import names
from ocr_finetune_operator.builders import config_map, job, network_policy, pod, service
from ocr_finetune_operator.builders.addresses import in_pod
from ocr_finetune_operator.builders.attempt import AttemptPlan
from ocr_finetune_operator.reconcile import results, watch
from ocr_finetune_operator.reconcile.draft import Create, Delete, Draft
from ocr_finetune_operator.reconcile.observation import Need, Observation
from ocr_finetune_operator.reconcile.policies import failure, fence, placement
from ocr_finetune_operator.reconcile.policies.failure import Cause
from ocr_finetune_operator.reconcile.views import JobView, PodView, iso, iso_precise, timestamp

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
_CHECK_EVERY = 5.0

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
        name = names.job(self.observation.run.name, attempt.stage, attempt.number)
        return next((one for one in self.jobs() if one.name == name), None)


def proceed(draft: Draft, observation: Observation, spec: OCRFineTuneSpec) -> Needs:
    """Goes on with an accepted run as far as it gets."""
    case = Case(draft=draft, observation=observation, spec=spec, plan=plan(in_pod(spec)))
    _adopt(case)
    attempt = draft.active
    if attempt is not None:
        needs = _look_at(case, attempt)
        if needs or draft.active is not None or draft.status.phase is Phase.FAILED:
            return needs
    return _next(case)


def _adopt(case: Case) -> None:
    """Takes up Jobs that the status knows nothing of: it was lost, or it is an old copy."""
    draft = case.draft
    for found in sorted(case.jobs(), key=lambda one: (one.created, one.attempt)):
        if found.stage is None or found.attempt <= draft.status.stage(found.stage).attempt:
            continue
        if draft.active is not None:
            draft.end_attempt(Outcome.REPEATED, reason="Superseded")
        planned = case.plan[found.stage]
        for earlier in STAGES[: STAGES.index(found.stage)]:
            if draft.status.stage(earlier).state is not StageState.SUCCEEDED:
                # A later stage has begun, so this one was done; its result lies in the workspace.
                draft.stage(earlier, state=StageState.SUCCEEDED, input_hash=case.plan[earlier].input_hash)
        draft.add_attempt(
            Attempt(stage=found.stage, number=found.attempt, nodes=found.parallelism, started_at=iso(found.created))
        )
        draft.stage(
            found.stage,
            state=StageState.RUNNING,
            attempt=found.attempt,
            job=found.name,
            input_hash=planned.input_hash,
            started_at=draft.status.stage(found.stage).started_at or iso(found.created),
        )
        draft.phase(PHASE_OF[found.stage])
        draft.note("Adopted", f"took up Job {found.name}, which the status did not name")
        draft.decisive()


# ---- the attempt that goes on ----


def _look_at(case: Case, attempt: Attempt) -> Needs:
    draft = case.draft
    found = case.job_of(attempt)
    if found is None:
        return _missing(case, attempt)
    if not attempt.job_uid:
        attempt = draft.attempt(job_uid=found.uid)
    elif attempt.job_uid != found.uid:
        _deleted_by_others(case, attempt)
        return ()
    pods = case.pods_of(found.name)
    if found.finished and found.name not in case.observation.facts.read_pods and _behind(found, attempt, pods):
        return (Need(what="pods", name=found.name),)
    if found.complete:
        _complete(case, attempt, pods)
        return ()
    if found.failed:
        return _failed(case, attempt, failure.root_cause(pods, nodes=attempt.nodes), found=None)
    return _look_at_unfinished(case, attempt, found, pods)


def _behind(found: JobView, attempt: Attempt, pods: list[PodView]) -> bool:
    """Whether the pods that are known may be older than the Job: each comes through a watch of its own."""
    if len(pods) < found.parallelism or any(not one.terminal for one in pods):
        return True
    return results.of_job(pods, attempt.stage) is None if found.complete else not any(one.failed for one in pods)


def _look_at_unfinished(case: Case, attempt: Attempt, found: JobView, pods: list[PodView]) -> Needs:
    draft = case.draft
    if not found.deleting and case.observation.run.stop:
        return _stop(case, attempt, found)
    if not found.deleting and case.spec.policy.suspend:
        _suspend(case, found)
        return ()
    needs = _give_up_lost(case, attempt, found, pods)
    if needs or draft.active is None:
        return needs
    if found.deleting:
        # Somebody deletes it; what follows is decided when it is gone.
        draft.within(_CHECK_EVERY)
        return ()
    verdict = watch.look(
        draft,
        spec=case.spec,
        attempt=attempt,
        found=found,
        pods=pods,
        progress=case.observation.progress,
        rules=case.observation.rules,
    )
    if verdict is not None:
        return _failed(case, draft.status.attempts[-1], verdict, found=found)
    return ()


def _missing(case: Case, attempt: Attempt) -> Needs:
    """The Job is not there: it was not made yet, or somebody deleted it."""
    name = names.job(case.observation.run.name, attempt.stage, attempt.number)
    conflict = next((one for one in case.observation.jobs if one.name == name), None)
    if conflict is not None:
        _name_conflict(case.draft, attempt.stage, f"Job {name} belongs to another object")
        return ()
    if attempt.job_uid:
        if name not in case.observation.facts.gone_jobs:
            return (Need(what="job", name=name),)
        _deleted_by_others(case, attempt)
        return ()
    if case.spec.policy.suspend:
        case.draft.end_attempt(Outcome.SUSPENDED, reason="Suspended")
        return ()
    facts = case.observation.facts
    if facts.refused:
        cause = failure.of_class(FailureClass.USER_ERROR, reason="Refused", message=facts.refused)
        return _failed(case, attempt, cause, found=None)
    if facts.blocked is not None:
        kind, reason, message = CONDITION_OF[attempt.stage], facts.blocked.reason, facts.blocked.message
        if case.draft.condition(kind, False, reason, message):
            case.draft.note(reason, message, warning=True)
        case.draft.within(_CHECK_EVERY)
        return ()
    _make(case, attempt)
    case.draft.decisive()
    return ()


def _name_conflict(draft: Draft, stage: Stage, message: str) -> None:
    """Another object has the name; it may be one of a run that is being deleted."""
    if draft.condition(CONDITION_OF[stage], False, "NameConflict", f"{message}; waiting until it is gone"):
        draft.note("NameConflict", message, warning=True)
    draft.within(_CHECK_EVERY)


def _deleted_by_others(case: Case, attempt: Attempt) -> None:
    draft = case.draft
    name = names.job(case.observation.run.name, attempt.stage, attempt.number)
    draft.end_attempt(Outcome.DISRUPTED, reason="JobDeleted", failure_class=FailureClass.PREEMPTED)
    draft.set(disruptions=draft.status.disruptions + 1)
    draft.note("JobDeleted", f"Job {name} was deleted, not by the operator; the stage is started again", warning=True)


def _complete(case: Case, attempt: Attempt, pods: list[PodView]) -> None:
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


def _suspend(case: Case, found: JobView) -> None:
    draft = case.draft
    draft.end_attempt(Outcome.SUSPENDED, reason="Suspended")
    draft.after.append(Delete(kind="Job", name=found.name, uid=found.uid, propagation="Foreground"))


def _stop(case: Case, attempt: Attempt, found: JobView) -> Needs:
    cause = failure.of_class(
        FailureClass.STOPPED, reason="Stopped", message="somebody asked for a stop; its last checkpoint is kept"
    )
    case.draft.end_attempt(Outcome.FAILED, reason="Stopped", failure_class=FailureClass.STOPPED)
    case.draft.after.append(Delete(kind="Job", name=found.name, uid=found.uid, propagation="Foreground"))
    _fail(case, attempt, cause, log_tail="", hint="raise policy.retryNonce to go on from the last checkpoint")
    return ()


def _give_up_lost(case: Case, attempt: Attempt, found: JobView, pods: list[PodView]) -> Needs:
    """Gives up pods of dead nodes: Kubernetes waits for them for ever."""
    facts = case.observation.facts
    nodes = sorted({one.node for one in pods if fence.suspicious(one)})
    unknown = [node for node in nodes if node not in facts.nodes]
    if unknown:
        return tuple(Need(what="node", name=node) for node in unknown)
    grace = seconds(case.spec.policy.node_lost_grace)
    lost, wait = fence.lost_pods(pods, nodes=facts.nodes, grace=grace, now=case.draft.now)
    if wait is not None:
        case.draft.within(min(wait, _CHECK_EVERY))
    elif nodes:
        case.draft.within(_CHECK_EVERY)
    if not lost:
        return ()
    case.draft.note("NodeLost", f"gives up {', '.join(one.name for one in lost)}: the node is not ready", warning=True)
    cause = failure.of_class(
        FailureClass.NODE_LOST,
        reason="NodeLost",
        message=f"node {lost[0].node} is not ready for {case.spec.policy.node_lost_grace}",
        pod=lost[0],
    )
    needs = _failed(case, attempt, cause, found=None if found.deleting else found)
    if not needs:
        _force_delete(case.draft, lost)
    return needs


def _force_delete(draft: Draft, pods: tuple[PodView, ...]) -> None:
    draft.after += [Delete(kind="Pod", name=one.name, uid=one.uid, force=True) for one in pods]


def _failed(case: Case, attempt: Attempt, cause: Cause, *, found: JobView | None) -> Needs:
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
        draft.attempt(scheduled=sum(1 for one in case.pods_of(_name(case, attempt)) if one.scheduled))
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
        _fail(case, attempt, cause, log_tail=log_tail)
        return ()
    _retry(case, attempt, cause, log_tail=log_tail, shrinks=shrinks)
    return ()


def _name(case: Case, attempt: Attempt) -> str:
    return names.job(case.observation.run.name, attempt.stage, attempt.number)


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
    draft.set(next_attempt_at=iso_precise(draft.now + wait))
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


def _fail(case: Case, attempt: Attempt, cause: Cause, *, log_tail: str, hint: str = "") -> None:
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


# ---- the next attempt ----


def _next(case: Case) -> Needs:
    draft = case.draft
    stage = _current_stage(case)
    if stage is None:
        _succeed(draft)
        return ()
    if case.observation.run.stop:
        cause = failure.of_class(FailureClass.STOPPED, reason="Stopped", message="somebody asked for a stop")
        placeholder = Attempt(stage=stage, number=max(draft.status.stage(stage).attempt, 1))
        _fail(case, placeholder, cause, log_tail="", hint="raise policy.retryNonce to go on")
        return ()
    needs = _clear(case)
    if needs is not None:
        if case.spec.policy.suspend:
            _rest(draft)
        return needs
    if case.spec.policy.suspend:
        _rest(draft)
        return ()
    if draft.status.phase in (Phase.SUSPENDED, Phase.PENDING, Phase.QUEUED):
        draft.phase(PHASE_OF[stage])
    if draft.status.condition(ConditionType.SUSPENDED) is not None:
        draft.condition(ConditionType.SUSPENDED, False, "Resumed")
    wait = (timestamp(draft.status.next_attempt_at) or 0.0) - draft.now
    if wait > 0:
        draft.within(wait)
        return ()
    if case.spec.policy.active_deadline and _deadline_over(case, stage):
        return ()
    _begin(case, stage)
    return ()


def _current_stage(case: Case) -> Stage | None:
    """The first stage that is not done for the spec as it stands."""
    for stage in STAGES:
        known = case.draft.status.stage(stage)
        if known.state is not StageState.SUCCEEDED or known.input_hash != case.plan[stage].input_hash:
            return stage
    return None


def _succeed(draft: Draft) -> None:
    draft.set(finished_at=iso(draft.now), next_attempt_at="", failure=None)
    draft.phase(Phase.SUCCEEDED)
    draft.condition(ConditionType.COMPLETE, True, "Succeeded", "all stages succeeded")
    draft.condition(ConditionType.FAILED, False, "Succeeded")
    draft.note("Succeeded", f"all stages succeeded; the model is in {draft.status.folder}/export")
    draft.decisive()


def _rest(draft: Draft) -> None:
    if draft.status.phase is not Phase.SUSPENDED:
        draft.phase(Phase.SUSPENDED)
        draft.note("Suspended", "suspended by policy.suspend; its last checkpoint is kept")
        draft.decisive()
    draft.condition(ConditionType.SUSPENDED, True, "Suspended", "policy.suspend is set")
    draft.condition(ConditionType.ADMITTED, False, "Suspended", "policy.suspend is set")


def _clear(case: Case) -> Needs | None:
    """Waits until nothing of earlier attempts runs any more; None if nothing does."""
    draft = case.draft
    jobs = case.jobs()
    known = {one.name for one in jobs}
    pods = [one for one in case.observation.pods if one.job in known or _of_run(case, one)]
    look = fence.look(
        jobs,
        pods,
        nodes=case.observation.facts.nodes,
        grace=seconds(case.spec.policy.node_lost_grace),
        now=draft.now,
    )
    if look.open:
        return None
    unknown = [node for node in look.nodes if node not in case.observation.facts.nodes]
    if unknown:
        return tuple(Need(what="node", name=node) for node in unknown)
    planned = {one.name for one in draft.after if isinstance(one, Delete)}
    for one in look.jobs:
        if one.name not in planned:
            draft.after.append(Delete(kind="Job", name=one.name, uid=one.uid, propagation="Foreground"))
    _force_delete(draft, tuple(one for one in look.lost if one.name not in planned))
    draft.within(min(look.wait if look.wait is not None else _CHECK_EVERY, _CHECK_EVERY))
    return ()


def _of_run(case: Case, one: PodView) -> bool:
    """Whether a pod is left of a Job of ours that is gone already."""
    run = case.observation.run.name
    return any(one.job == names.job(run, attempt.stage, attempt.number) for attempt in case.draft.status.attempts)


def _deadline_over(case: Case, stage: Stage) -> bool:
    limit = seconds(case.spec.policy.active_deadline)
    if not limit or case.draft.status.active_seconds < limit:
        return False
    cause = watch.deadline(case.spec)
    placeholder = Attempt(stage=stage, number=max(case.draft.status.stage(stage).attempt, 1))
    _fail(case, placeholder, cause, log_tail="", hint=cause.hint)
    return True


def _begin(case: Case, stage: Stage) -> None:
    """Writes down that there will be another attempt, and makes it after that."""
    draft, planned = case.draft, case.plan[stage]
    known = draft.status.stage(stage)
    number = known.attempt + 1
    of_stage = [one for one in draft.status.attempts if one.stage is stage]
    nodes = placement.nodes_for(case.spec, stage, of_stage)
    attempt = Attempt(
        stage=stage,
        number=number,
        nodes=nodes,
        started_at=iso(draft.now),
        resumed_from_step=max((one.checkpoint_step for one in of_stage), default=0),
    )
    draft.add_attempt(attempt)
    draft.stage(
        stage,
        state=StageState.RUNNING,
        attempt=number,
        started_at=known.started_at or iso(draft.now),
        finished_at="",
        job=names.job(case.observation.run.name, stage, number),
        input_hash=planned.input_hash,
    )
    draft.set(next_attempt_at="", progress=None if number == 1 else draft.status.progress)
    draft.phase(PHASE_OF[stage])
    draft.condition(CONDITION_OF[stage], False, "Starting", f"attempt {number} on {nodes} nodes")
    draft.also("StageStarted", f"{stage.value} attempt {number} on {nodes} node{'s' if nodes > 1 else ''}")
    draft.decisive()
    _make(case, attempt)


def _make(case: Case, attempt: Attempt) -> None:
    """Makes what an attempt consists of; each part may be there already."""
    observation, spec, draft = case.observation, case.spec, case.draft
    planned = case.plan[attempt.stage]
    device = "cpu" if spec.distributed.device == "cpu" else "gpu"
    built = AttemptPlan(
        owner=observation.owner,
        spec=spec,
        stage=attempt.stage,
        number=attempt.number,
        nodes=attempt.nodes,
        devices_per_node=planned.devices_per_node,
        device=device if pod.uses_device(attempt.stage, device) else "cpu",
        image=draft.status.resolved.image,
        claim=draft.status.claim,
        input_hash=planned.input_hash,
        avoid_nodes=placement.avoided_nodes(spec, draft.status.attempts),
        installation=observation.rules.installation,
    )
    if observation.rules.network_policy and attempt.stage in (Stage.PREPARE, Stage.TRAIN):
        policy = network_policy.build(observation.owner, observation.rules.installation)
        draft.after.append(Create(manifest=policy, apply=True))
    draft.after.append(Create(manifest=config_map.build(built)))
    if attempt.stage is Stage.TRAIN:
        draft.after.append(
            Create(manifest=service.build(observation.owner, observation.rules.installation), apply=True)
        )
    draft.after.append(Create(manifest=job.build(built)))
    draft.within(_CHECK_EVERY * 2)
