"""The attempt that goes on: how it stands, and what follows from that."""

from __future__ import annotations

from ocr_finetune_api.conditions import Phase
from ocr_finetune_api.exit_codes import FailureClass
from ocr_finetune_api.plan import STAGES, Stage, plan
from ocr_finetune_api.spec import OCRFineTuneSpec
from ocr_finetune_api.status import Attempt, Outcome, StageState
from ocr_finetune_api.values import seconds
from ocr_finetune_operator import names
from ocr_finetune_operator.builders.addresses import in_pod
from ocr_finetune_operator.reconcile import beginning, ending, results, watch
from ocr_finetune_operator.reconcile.case import CHECK_EVERY, CONDITION_OF, PHASE_OF, Case, Needs
from ocr_finetune_operator.reconcile.draft import Draft
from ocr_finetune_operator.reconcile.observation import Need, Observation
from ocr_finetune_operator.reconcile.policies import failure, fence
from ocr_finetune_operator.reconcile.views import JobView, PodView, iso


def proceed(draft: Draft, observation: Observation, spec: OCRFineTuneSpec) -> Needs:
    """Goes on with an accepted run as far as it gets."""
    case = Case(draft=draft, observation=observation, spec=spec, plan=plan(in_pod(spec)))
    _adopt(case)
    attempt = draft.active
    if attempt is not None:
        needs = _look_at(case, attempt)
        if needs or draft.active is not None or draft.status.phase is Phase.FAILED:
            return needs
    return beginning.go_on(case)


def _adopt(case: Case) -> None:
    """Takes up Jobs that the status knows nothing of: it was lost, or it is an old copy."""
    draft = case.draft
    for found in sorted(case.jobs(), key=lambda one: (one.created, one.attempt)):
        if found.stage is None or found.attempt <= draft.status.stage(found.stage).attempt:
            continue
        if found.name != names.job(case.observation.run.name, found.stage, found.attempt):
            continue  # somebody has changed its labels
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


def _look_at(case: Case, attempt: Attempt) -> Needs:
    draft = case.draft
    found = case.job_of(attempt)
    if found is None:
        return _missing(case, attempt)
    if not attempt.job_uid:
        attempt = draft.attempt(job_uid=found.uid)
    elif attempt.job_uid != found.uid:
        ending.deleted_by_others(case, attempt)
        return ()
    what = _changed(found, attempt)
    if what:
        ending.changed_by_others(case, found, what)
        return ()
    pods = case.pods_of(found.name)
    if found.finished and found.name not in case.observation.facts.read_pods and _behind(found, attempt, pods):
        return (Need(what="pods", name=found.name),)
    if found.complete:
        if results.of_job(pods, attempt.stage) is None and found.parallelism != attempt.nodes:
            # Without pods to wait for, Kubernetes takes it for complete.
            ending.changed_by_others(case, found, _resized(found, attempt))
            return ()
        ending.complete(case, attempt, pods)
        return ()
    if found.failed:
        return ending.failed(case, attempt, failure.root_cause(pods, nodes=attempt.nodes), found=None)
    return _look_at_unfinished(case, attempt, found, pods)


def _changed(found: JobView, attempt: Attempt) -> str:
    """What somebody has changed of a Job so that it can't go on as it should; empty for nothing."""
    if found.finished or found.deleting:
        return ""
    if (found.stage, found.attempt) != (attempt.stage, attempt.number):
        return "its labels were changed"
    return _resized(found, attempt) if found.parallelism != attempt.nodes else ""


def _resized(found: JobView, attempt: Attempt) -> str:
    return f"its parallelism was changed from {attempt.nodes} to {found.parallelism}"


def _behind(found: JobView, attempt: Attempt, pods: list[PodView]) -> bool:
    """Whether the pods that are known may be older than the Job: each comes through a watch of its own."""
    if len(pods) < found.parallelism or any(not one.terminal for one in pods):
        return True
    return results.of_job(pods, attempt.stage) is None if found.complete else not any(one.failed for one in pods)


def _look_at_unfinished(case: Case, attempt: Attempt, found: JobView, pods: list[PodView]) -> Needs:
    draft = case.draft
    if not found.deleting and case.observation.run.stop:
        return ending.stop(case, attempt, found)
    if not found.deleting and case.spec.policy.suspend:
        ending.suspend(case, found)
        return ()
    needs = _give_up_lost(case, attempt, found, pods)
    if needs or draft.active is None:
        return needs
    if found.deleting:
        # Somebody deletes it; what follows is decided when it is gone.
        draft.within(CHECK_EVERY)
        return ()
    waits_for = ""
    if found.suspended:
        if found.uid not in case.observation.facts.workloads:
            return (Need(what="workload", name=found.uid),)
        waits_for = case.observation.facts.workloads[found.uid]
    verdict = watch.look(
        draft,
        spec=case.spec,
        attempt=attempt,
        found=found,
        pods=pods,
        progress=case.observation.progress,
        rules=case.observation.rules,
        waits_for=waits_for,
    )
    if verdict is not None:
        return ending.failed(case, draft.status.attempts[-1], verdict, found=found)
    if case.observation.facts.repair_due:
        beginning.make(case, draft.status.attempts[-1], again=True)
    return ()


def _missing(case: Case, attempt: Attempt) -> Needs:
    """The Job is not there: it was not made yet, or somebody deleted it."""
    name = case.name_of(attempt)
    conflict = next((one for one in case.observation.jobs if one.name == name), None)
    if conflict is not None:
        _name_conflict(case.draft, attempt.stage, f"Job {name} belongs to another object")
        return ()
    if attempt.job_uid:
        if name not in case.observation.facts.gone_jobs:
            return (Need(what="job", name=name),)
        ending.deleted_by_others(case, attempt)
        return ()
    if case.spec.policy.suspend:
        case.draft.end_attempt(Outcome.SUSPENDED, reason="Suspended")
        return ()
    facts = case.observation.facts
    if facts.refused:
        cause = failure.of_class(FailureClass.USER_ERROR, reason="Refused", message=facts.refused)
        return ending.failed(case, attempt, cause, found=None)
    if facts.blocked is not None:
        kind, reason, message = CONDITION_OF[attempt.stage], facts.blocked.reason, facts.blocked.message
        if case.draft.condition(kind, False, reason, message):
            case.draft.note(reason, message, warning=True)
        case.draft.within(CHECK_EVERY)
        return ()
    beginning.make(case, attempt)
    case.draft.decisive()
    return ()


def _name_conflict(draft: Draft, stage: Stage, message: str) -> None:
    """Another object has the name; it may be one of a run that is being deleted."""
    if draft.condition(CONDITION_OF[stage], False, "NameConflict", f"{message}; waiting until it is gone"):
        draft.note("NameConflict", message, warning=True)
    draft.within(CHECK_EVERY)


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
        case.draft.within(min(wait, CHECK_EVERY))
    elif nodes:
        case.draft.within(CHECK_EVERY)
    if not lost:
        return ()
    case.draft.note("NodeLost", f"gives up {', '.join(one.name for one in lost)}: the node is not ready", warning=True)
    cause = failure.of_class(
        FailureClass.NODE_LOST,
        reason="NodeLost",
        message=f"node {lost[0].node} is not ready for {case.spec.policy.node_lost_grace}",
        pod=lost[0],
    )
    needs = ending.failed(case, attempt, cause, found=None if found.deleting else found)
    if not needs:
        case.draft.give_up(lost)
    return needs
