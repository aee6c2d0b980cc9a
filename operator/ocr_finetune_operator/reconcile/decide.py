"""The decision: from what is there to what is done, and to the one status that is written. Pure.

The order of things is what makes a killed operator harmless: the outcome of an attempt and the intention to make the
next one are written together, before anything is made; what is made has a name that follows from the status. So every
step can be done again.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pydantic import ValidationError

from ocr_finetune_api.conditions import ConditionType, Phase
from ocr_finetune_api.manifest import problems_of
from ocr_finetune_api.plan import Stage
from ocr_finetune_api.spec import OCRFineTuneSpec
from ocr_finetune_api.status import OCRFineTuneStatus, Resolved, StageState
from ocr_finetune_api.values import seconds
from ocr_finetune_api.workspace import run_folder
from ocr_finetune_operator import names, profiles
from ocr_finetune_operator.builders import claim, config_map
from ocr_finetune_operator.reconcile import attempts
from ocr_finetune_operator.reconcile.draft import Create, Delete, Draft
from ocr_finetune_operator.reconcile.observation import Need, Observation, Problem
from ocr_finetune_operator.reconcile.policies.drift import Accepted, effective
from ocr_finetune_operator.reconcile.views import iso, timestamp

SPEC_DRIFT = "SpecDrift"
_FINAL = (Phase.SUCCEEDED, Phase.FAILED)


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What to do.

    Attributes:
        draft: Status, actions and events.
        needs: What has to be asked for first; nothing of the draft counts then.
        spec: The spec it works from, if there is one.
    """

    draft: Draft
    needs: tuple[Need, ...] = ()
    spec: OCRFineTuneSpec | None = field(default=None)


def read_status(values: object) -> OCRFineTuneStatus:
    """The status as it stands; one that somebody has broken counts as none, so the run is taken up from its Jobs."""
    try:
        return OCRFineTuneStatus.model_validate(values)
    except ValidationError:
        return OCRFineTuneStatus()


def decide(observation: Observation) -> Decision:
    """Decides what to do about a run."""
    run = observation.run
    status = read_status(run.status)
    draft = Draft(status=status, now=observation.now, generation=run.generation)
    if run.deleting:
        return Decision(draft=draft)
    if status.observed_generation != run.generation and status.phase not in _FINAL:
        draft.set(observed_generation=run.generation)
    if status.phase in _FINAL:
        _finished(draft, observation)
        if draft.status.phase in _FINAL:
            return Decision(draft=draft)
    live = _parse(draft, observation)
    if not status.spec_hash:
        return _draft_run(draft, observation, live)
    return _accepted_run(draft, observation, live)


def _parse(draft: Draft, observation: Observation) -> OCRFineTuneSpec | None:
    """The spec as it stands; what is wrong with it becomes a condition."""
    try:
        return OCRFineTuneSpec.model_validate(observation.run.spec)
    except ValidationError as error:
        document = {"spec": observation.run.spec}
        found = problems_of(error, document["spec"], root=OCRFineTuneSpec)
        message = "; ".join(f"spec.{problem}" for problem in found)
    except RecursionError:
        message = "spec: it is nested too deeply"
    if not draft.status.spec_hash:
        if draft.condition(ConditionType.ACCEPTED, False, "Unparseable", message):
            draft.note("Unparseable", message, warning=True)
    elif draft.condition(SPEC_DRIFT, True, "Unparseable", f"it is ignored, the run goes on as accepted: {message}"):
        draft.note(SPEC_DRIFT, message, warning=True)
    return None


# ---- a run that has not been accepted ----


def _draft_run(draft: Draft, observation: Observation, live: OCRFineTuneSpec | None) -> Decision:
    draft.phase(Phase.PENDING)
    if live is None:
        return Decision(draft=draft)
    profile = observation.rules.profiles.get(live.profile or profiles.DEFAULT)
    accepted = Accepted(spec=live, profile=profile)
    spec = profiles.apply(live, profile)
    problems = _obstacles(observation)
    if problems is None:
        return Decision(draft=draft, needs=(Need(what="preflight"),), spec=spec)
    if problems:
        message = "; ".join(problem.message for problem in problems)
        if draft.condition(ConditionType.ACCEPTED, False, problems[0].reason, message):
            draft.note(problems[0].reason, message, warning=True)
        draft.within(observation.rules.recheck_interval)
        return Decision(draft=draft, spec=spec)
    _accept(draft, observation, accepted, spec)
    needs = attempts.proceed(draft, observation, spec)
    return Decision(draft=draft, needs=needs, spec=spec)


def _obstacles(observation: Observation) -> tuple[Problem, ...] | None:
    """Why the run can't be accepted; None if nobody has looked yet."""
    facts = observation.facts
    if facts.refused:
        return (Problem(reason="Refused", message=f"Kubernetes refuses what the run needs: {facts.refused}"),)
    return (facts.blocked,) if facts.blocked is not None else facts.problems


def _accept(draft: Draft, observation: Observation, accepted: Accepted, spec: OCRFineTuneSpec) -> None:
    rules, run = observation.rules, observation.run
    draft.set(
        spec_hash=accepted.hash,
        observed_retry_nonce=spec.policy.retry_nonce,
        started_at=iso(observation.now),
        claim=spec.workspace.claim_name or names.claim(run.name),
        folder=run_folder(run.name, run.uid),
        resolved=Resolved(
            image=spec.pods.image or rules.trainer_image,
            operator_version=rules.operator_version,
            profile=spec.profile or (profiles.DEFAULT if accepted.profile else ""),
        ),
    )
    owner = observation.owner
    if not spec.workspace.claim_name:
        draft.before.append(Create(manifest=claim.build(owner, spec.workspace)))
    snapshot = config_map.build_snapshot(owner, spec_hash=accepted.hash, document=accepted.document())
    draft.before.append(Create(manifest=snapshot))
    draft.condition(ConditionType.ACCEPTED, True, "Accepted", "the run works from this spec")
    draft.note("Accepted", f"accepted with image {draft.status.resolved.image}")
    draft.decisive()


# ---- a run that has been accepted ----


def _accepted_run(draft: Draft, observation: Observation, live: OCRFineTuneSpec | None) -> Decision:
    facts = observation.facts
    rules = observation.rules
    accepted: Accepted | None = facts.snapshot
    if accepted is None and live is not None:
        same = Accepted(spec=live, profile=rules.profiles.get(live.profile or profiles.DEFAULT))
        if same.hash == draft.status.spec_hash:
            accepted = same
        elif facts.snapshot_lost:
            accepted = same
            message = "the ConfigMap with the accepted spec is gone; the run goes on with the spec as it stands"
            draft.note("SnapshotLost", message, warning=True)
    if accepted is None:
        if facts.snapshot_lost:
            draft.condition(ConditionType.ACCEPTED, False, "SnapshotLost",
                            "the accepted spec is gone and the present one can't be read; correct it")  # fmt: skip
            return Decision(draft=draft)
        return Decision(draft=draft, needs=(Need(what="snapshot"),))
    working = effective(accepted, live, draft.status) if live is not None else None
    if working is not None:
        _tell_drift(draft, working.drift)
        _renew_snapshot(draft, observation, working.accepted)
        accepted = working.accepted
    spec = profiles.apply(accepted.spec, accepted.profile)
    needs = attempts.proceed(draft, observation, spec)
    return Decision(draft=draft, needs=needs, spec=spec)


def _tell_drift(draft: Draft, drift: tuple[str, ...]) -> None:
    if drift:
        message = f"ignored, the run goes on as accepted: {', '.join(drift)}"
        if draft.condition(SPEC_DRIFT, True, "Ignored", message):
            draft.note(SPEC_DRIFT, message, warning=True)
    elif draft.status.condition(SPEC_DRIFT) is not None:
        draft.condition(SPEC_DRIFT, False, "InAccord", "the run works from the spec as it stands")


def _renew_snapshot(draft: Draft, observation: Observation, accepted: Accepted) -> None:
    """Keeps what was taken over, so that it stays when it may change no more."""
    if accepted.hash == draft.status.spec_hash:
        return
    owner = observation.owner
    manifest = config_map.build_snapshot(owner, spec_hash=accepted.hash, document=accepted.document())
    draft.before.append(Create(manifest=manifest))
    draft.after.append(Delete(kind="ConfigMap", name=names.snapshot(owner.name, draft.status.spec_hash)))
    draft.set(spec_hash=accepted.hash)
    image = accepted.spec.pods.image
    if image and image != draft.status.resolved.image:
        draft.set(resolved=draft.status.resolved.model_copy(update={"image": image}))
    draft.note("SpecChanged", "changes of the spec were taken over")
    draft.decisive()


# ---- a run that has ended ----


def _finished(draft: Draft, observation: Observation) -> None:
    policy = observation.run.spec.get("policy")
    policy = policy if isinstance(policy, dict) else {}
    nonce = policy.get("retryNonce", 0)
    if isinstance(nonce, int) and nonce > draft.status.observed_retry_nonce and draft.status.spec_hash:
        if draft.status.phase is Phase.FAILED:
            _reopen(draft, nonce)
            return
        draft.set(observed_retry_nonce=nonce)
    for job in observation.jobs:
        # The operator was killed between writing the end and deleting the Job.
        if job.owner_uid == observation.run.uid and not job.finished and not job.deleting:
            draft.after.append(Delete(kind="Job", name=job.name, uid=job.uid, propagation="Foreground"))
    _clean_up(draft, observation, ttl=policy.get("ttlAfterFinished", "168h"))


def _reopen(draft: Draft, nonce: int) -> None:
    """Goes on with a failed run at the stage that failed."""
    for known in draft.status.stages:
        if known.state in (StageState.FAILED, StageState.RUNNING):
            draft.stage(known.name, state=StageState.RUNNING)
    draft.set(
        observed_retry_nonce=nonce,
        restarts=0,
        active_seconds=0,
        failure=None,
        finished_at="",
        next_attempt_at="",
        cleaned_up=False,
        phase=Phase.PENDING,
    )
    draft.condition(ConditionType.FAILED, False, "Retried", f"policy.retryNonce was raised to {nonce}")
    draft.note("Retried", f"goes on at the failed stage: policy.retryNonce was raised to {nonce}")
    draft.decisive()


def _clean_up(draft: Draft, observation: Observation, *, ttl: object) -> None:
    status = draft.status
    finished = timestamp(status.finished_at)
    if status.cleaned_up or finished is None:
        return
    try:
        left = finished + seconds(str(ttl)) - observation.now
    except ValueError:
        return
    if left > 0:
        draft.within(left)
        return
    run = observation.run
    for job in observation.jobs:
        if job.owner_uid == run.uid and not job.deleting:
            draft.before.append(Delete(kind="Job", name=job.name, uid=job.uid, propagation="Background"))
    for stage in Stage:
        for number in range(1, status.stage(stage).attempt + 1):
            draft.before.append(Delete(kind="ConfigMap", name=names.job(run.name, stage, number)))
    if status.spec_hash:
        draft.before.append(Delete(kind="ConfigMap", name=names.snapshot(run.name, status.spec_hash)))
    if status.stage(Stage.TRAIN).attempt:
        draft.before.append(Delete(kind="Service", name=names.service(run.name)))
    if observation.rules.network_policy:
        draft.before.append(Delete(kind="NetworkPolicy", name=names.network_policy(run.name)))
    draft.set(cleaned_up=True)
    draft.note("CleanedUp", "its Jobs and pods were removed; what it made is in the workspace")
    draft.decisive()
