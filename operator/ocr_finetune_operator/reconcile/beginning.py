"""The next attempt: whether there is one, whether it may start yet, and what it consists of."""

from __future__ import annotations

from ocr_finetune_api.conditions import ConditionType, Phase
from ocr_finetune_api.exit_codes import FailureClass
from ocr_finetune_api.plan import STAGES, Stage
from ocr_finetune_api.status import Attempt, StageState
from ocr_finetune_api.values import seconds
from ocr_finetune_operator import names
from ocr_finetune_operator.builders import config_map, job, network_policy, pod, service
from ocr_finetune_operator.builders.attempt import AttemptPlan
from ocr_finetune_operator.reconcile import ending, watch
from ocr_finetune_operator.reconcile.case import CHECK_EVERY, CONDITION_OF, PHASE_OF, Case, Needs
from ocr_finetune_operator.reconcile.draft import Create, Delete, Draft
from ocr_finetune_operator.reconcile.observation import Need
from ocr_finetune_operator.reconcile.policies import failure, fence, placement
from ocr_finetune_operator.reconcile.views import PodView, iso, timestamp


def go_on(case: Case) -> Needs:
    """Begins the next attempt if there is one and it may start; ends the run if nothing is left to do."""
    draft = case.draft
    stage = _current_stage(case)
    if stage is None:
        ending.succeed(draft)
        return ()
    if case.observation.run.stop:
        cause = failure.of_class(FailureClass.STOPPED, reason="Stopped", message="somebody asked for a stop")
        placeholder = Attempt(stage=stage, number=max(draft.status.stage(stage).attempt, 1))
        ending.fail(case, placeholder, cause, log_tail="", hint="raise policy.retryNonce to go on")
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
    draft.give_up(tuple(one for one in look.lost if one.name not in planned))
    draft.within(min(look.wait if look.wait is not None else CHECK_EVERY, CHECK_EVERY))
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
    ending.fail(case, placeholder, cause, log_tail="", hint=cause.hint)
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
    make(case, attempt)


def make(case: Case, attempt: Attempt, *, again: bool = False) -> None:
    """Makes what an attempt consists of; each part may be there already.

    Args:
        case: The run.
        attempt: The attempt.
        again: It goes on: all but its Job is looked after, as somebody may have deleted or changed it.
    """
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
        draft.after.append(Create(manifest=policy, apply=True, repair=again))
    draft.after.append(Create(manifest=config_map.build(built), repair=again))
    if attempt.stage is Stage.TRAIN:
        headless = service.build(observation.owner, observation.rules.installation)
        draft.after.append(Create(manifest=headless, apply=True, repair=again))
    if not again:
        draft.after.append(Create(manifest=job.build(built)))
        draft.within(CHECK_EVERY * 2)
