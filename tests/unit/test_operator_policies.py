"""The policies of the operator: values in, values out."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ocr_finetune_api.conditions import Phase
from ocr_finetune_api.exit_codes import ExitCode, FailureClass
from ocr_finetune_api.plan import Stage
from ocr_finetune_api.progress import Activity, Progress
from ocr_finetune_api.results import StageResult
from ocr_finetune_api.spec import OCRFineTuneSpec
from ocr_finetune_api.status import (
    MAX_ATTEMPTS,
    MAX_STATUS_BYTES,
    Attempt,
    Failure,
    OCRFineTuneStatus,
    Outcome,
    StageState,
    StageStatus,
)
from ocr_finetune_operator import profiles, settings
from ocr_finetune_operator.reconcile import status as status_writer
from ocr_finetune_operator.reconcile.decide import decide, read_status
from ocr_finetune_operator.reconcile.limiter import Limiter
from ocr_finetune_operator.reconcile.observation import Facts, Observation, Rules
from ocr_finetune_operator.reconcile.policies import drift, failure, placement, progress
from ocr_finetune_operator.reconcile.queue import WorkQueue
from ocr_finetune_operator.reconcile.views import JobView, PodView, RunView

SPEC: dict[str, Any] = {
    "model": {"name": "PP-OCRv5_mobile_rec"},
    "dataset": {"train": [{"uri": "pvc://plates"}]},
    "distributed": {"nodes": 4, "minNodes": 2},
    "training": {"epochs": 10},
    "workspace": {"claimName": "work"},
}


def _spec(**parts: Any) -> OCRFineTuneSpec:
    return OCRFineTuneSpec.model_validate(SPEC | parts)


def _pod(index: int, *, code: int | None = None, at: float = 0.0, told: int | None = None, **fields: Any) -> PodView:
    message = ""
    if told is not None:
        result = StageResult(stage=Stage.TRAIN, input_hash="", exit_code=told, message=f"rank {index}", rank=index)
        message = result.short_form()
    values: dict[str, Any] = {
        "name": f"pod-{index}", "uid": str(index), "job": "job", "index": index, "node": f"node-{index}", "ip": "",
        "phase": "Running" if code is None else "Failed" if code else "Succeeded", "created": 0.0, "deleted_at": None,
        "gone": False, "scheduled": True, "unschedulable": "", "running": code is None, "ready": code is None,
        "disruption": "", "disruption_message": "", "exit_code": code, "exited_at": at, "exit_reason": "Error",
        "exit_message": message, "waiting": "", "waiting_message": "",
    }  # fmt: skip
    return PodView(**(values | fields))


def _attempt(number: int = 1, **fields: Any) -> Attempt:
    values: dict[str, Any] = {"stage": Stage.TRAIN, "number": number, "nodes": 4, "ended_at": "x"}
    return Attempt(**(values | {"outcome": Outcome.FAILED} | fields))


# ---- the root cause ----


def test_the_root_cause_is_looked_for_by_how_certain_it_is() -> None:
    crash, peer = _pod(2, code=139, at=10), _pod(0, code=69, told=69, at=11)
    data = _pod(1, code=65, told=65, at=12)
    memory = _pod(3, code=137, at=13, exit_reason="OOMKilled")
    drained = _pod(1, code=75, at=14, disruption="EvictionByEvictionAPI", deleted_at=14.0)
    cases = [
        ((peer, crash, data, memory, drained), FailureClass.PREEMPTED, 1),
        ((peer, crash, data, memory), FailureClass.OUT_OF_MEMORY, 3),
        ((peer, crash, data), FailureClass.DATA, 1),
        ((peer, crash), FailureClass.INTERNAL, 2),
        ((peer, _pod(1, code=69, told=69, at=5)), FailureClass.RENDEZVOUS, 1),
    ]
    for pods, failure_class, index in cases:
        cause = failure.root_cause(pods, nodes=len(pods))
        assert cause.pod is not None
        assert (cause.failure_class, cause.pod.index) == (failure_class, index)
        assert cause.hint


def test_the_node_that_the_gang_itself_blames_is_blamed() -> None:
    verdict = StageResult(
        stage=Stage.TRAIN,
        input_hash="",
        exit_code=69,
        failure_class=FailureClass.STALLED,
        message="rank 1 (node 1) has given no sign of life",
        rank=1,
    ).short_form()
    first = _pod(0, code=69, at=5, exit_message=verdict)
    for second in (_pod(1, code=69, at=6, exit_message=verdict), _pod(1, code=137, at=7, deleted_at=6.0)):
        cause = failure.root_cause([first, second], nodes=2)
        assert cause.pod is not None
        assert (cause.failure_class, cause.pod.node, cause.exit_code) == (FailureClass.STALLED, "node-1", 69)


def test_a_rendezvous_without_a_peer_is_unschedulable() -> None:
    waiting = _pod(1, scheduled=False, running=False, phase="Pending")
    cause = failure.root_cause([_pod(0, code=69, told=69), waiting], nodes=2)
    assert cause.failure_class is FailureClass.UNSCHEDULABLE


def test_pods_that_were_deleted_blame_nobody() -> None:
    cause = failure.root_cause([_pod(0, code=143, deleted_at=5.0), _pod(1, code=75, deleted_at=6.0)], nodes=2)
    assert cause.failure_class is FailureClass.PREEMPTED
    assert failure.root_cause([], nodes=2).failure_class is FailureClass.PREEMPTED


def test_every_class_has_a_rule_with_a_hint() -> None:
    assert set(failure.RULES) == set(FailureClass)
    assert all(rule.hint and rule.meaning for rule in failure.RULES.values())


@pytest.mark.parametrize("failure_class", list(FailureClass))
def test_disruptions_are_always_retried_and_the_rest_only_so_often(failure_class: FailureClass) -> None:
    got_on = _attempt(resumed_from_step=5, checkpoint_step=10)
    disruption = failure.outcome_of(failure_class) is Outcome.DISRUPTED
    assert failure.may_retry(failure_class, attempt=got_on, restarts=3, max_restarts=3) == disruption
    never = failure.RULES[failure_class].handling is failure.Handling.FAIL
    assert failure.may_retry(failure_class, attempt=got_on, restarts=0, max_restarts=3) == (not never)


def test_out_of_memory_is_retried_only_if_it_got_on() -> None:
    stuck = _attempt(resumed_from_step=10, checkpoint_step=10)
    assert not failure.may_retry(FailureClass.OUT_OF_MEMORY, attempt=stuck, restarts=0, max_restarts=3)


@given(st.integers(1, 30), st.text(max_size=10))
def test_the_back_off_doubles_up_to_its_limit(failures: int, key: str) -> None:
    attempts = [_attempt(n + 1) for n in range(failures)]
    wait = failure.back_off(attempts, base=30, limit=600, key=key)
    middle = min(30 * 2 ** (failures - 1), 600)
    assert middle * 0.5 <= wait <= middle * 1.5
    assert wait == failure.back_off(attempts, base=30, limit=600, key=key)


@given(st.text(max_size=10))
def test_after_an_attempt_that_got_on_the_wait_is_short(key: str) -> None:
    attempts = [_attempt(1), _attempt(2), _attempt(3, resumed_from_step=0, checkpoint_step=100)]
    assert 5 <= failure.back_off(attempts, base=30, limit=600, key=key) <= 15
    # One that brings nothing after it begins the row anew.
    assert 30 <= failure.back_off([*attempts, _attempt(4)], base=30, limit=600, key=key) <= 90


# ---- placement ----


@pytest.mark.parametrize(("ended", "seconds"), [(995.0, 5.0), (1000.0, 0.0), (None, 0.0), (100.0, 0.0), (1200.0, 0.0)])
def test_the_back_off_counts_from_the_failure_itself(ended: float | None, seconds: float) -> None:
    pod = replace(_pod(0, code=1), exited_at=ended)
    cause = failure.of_class(FailureClass.INTERNAL, reason="Error", message="", pod=pod)
    assert failure.noticed_after(cause, now=1000.0) == seconds
    assert failure.noticed_after(replace(cause, pod=None), now=1000.0) == 0.0


def test_fewer_nodes_after_unschedulable_and_all_of_them_after_anything_else() -> None:
    spec = _spec()
    lacking = {"failure_class": FailureClass.UNSCHEDULABLE}
    assert placement.nodes_for(spec, Stage.TRAIN, []) == 4
    assert placement.nodes_for(spec, Stage.TRAIN, [_attempt(scheduled=3, **lacking)]) == 3
    assert placement.nodes_for(spec, Stage.TRAIN, [_attempt(scheduled=0, **lacking)]) == 3
    assert placement.nodes_for(spec, Stage.TRAIN, [_attempt(scheduled=1, **lacking)]) == 2
    assert placement.nodes_for(spec, Stage.TRAIN, [_attempt(nodes=2, failure_class=FailureClass.DEVICE)]) == 4
    assert placement.nodes_for(spec, Stage.EVALUATE, [_attempt(**lacking)]) == 1


def test_a_node_is_avoided_for_what_is_its_own_fault_twice() -> None:
    spec = _spec()
    device = [_attempt(n, node="bad", failure_class=FailureClass.DEVICE) for n in (1, 2)]
    data = [_attempt(n, node="good", failure_class=FailureClass.DATA) for n in (1, 2)]
    assert placement.avoided_nodes(spec, [*device, *data]) == ("bad",)
    assert placement.avoided_nodes(spec, device[:1]) == ()
    assert placement.avoided_nodes(_spec(policy={"avoidFailedNodes": False}), device) == ()


# ---- what may change ----


def _status(state: StageState, **fields: Any) -> OCRFineTuneStatus:
    stages = [StageStatus(name=Stage.TRAIN, state=state)]
    return OCRFineTuneStatus(
        phase=Phase.TRAINING, spec_hash="x", stages=stages, attempts=[_attempt(ended_at="")]
    ).model_copy(update=fields)


def test_epochs_rise_until_training_ends() -> None:
    accepted = drift.Accepted(spec=_spec())
    more, fewer = _spec(training={"epochs": 20}), _spec(training={"epochs": 5})
    taken = drift.effective(accepted, more, _status(StageState.RUNNING))
    assert (taken.accepted.spec.training.epochs, taken.drift) == (20, ())
    for live, status in ((fewer, _status(StageState.RUNNING)), (more, _status(StageState.SUCCEEDED))):
        kept = drift.effective(accepted, live, status)
        assert kept.accepted.spec.training.epochs == 10
        assert kept.drift == ("spec.training.epochs",)


def test_what_drifts_is_named_and_ignored() -> None:
    live = _spec(training={"epochs": 10, "learningRate": 0.5}, distributed={"nodes": 2}, policy={"maxRestarts": 9})
    working = drift.effective(drift.Accepted(spec=_spec()), live, _status(StageState.RUNNING))
    assert set(working.drift) == {"spec.distributed.nodes", "spec.distributed.minNodes", "spec.training.learningRate"}
    assert working.accepted.spec.distributed.nodes == 4
    assert working.accepted.spec.policy.max_restarts == 9


def test_an_accepted_spec_comes_back_as_it_was() -> None:
    profile = profiles.Profile(env={"A": "b"})
    accepted = drift.Accepted(spec=_spec(), profile=profile)
    again = drift.Accepted.read(json.loads(json.dumps(accepted.document())))
    assert (again.hash, again.profile) == (accepted.hash, profile)
    with pytest.raises(ValueError, match="no document"):
        drift.Accepted.read("nonsense")


# ---- progress ----


def test_only_steps_that_do_not_come_are_a_stall() -> None:
    seen = progress.Pulled(job="j")
    training = Progress(stage=Stage.TRAIN, activity=Activity.TRAINING, step=5)
    seen = progress.answered(seen, training, now=0)
    seen = progress.answered(seen, training, now=100)
    assert progress.stalled_for(seen) == 100
    assert progress.stalled_for(progress.unanswered(seen, "gone", now=200)) == 0
    evaluating = training.model_copy(update={"activity": Activity.EVALUATING})
    seen = progress.answered(seen, evaluating, now=300)
    assert progress.stalled_for(progress.answered(seen, evaluating, now=900)) == 0
    seen = progress.answered(seen, training, now=1000)
    assert progress.stalled_for(seen) == 0


@example(loss=1.7975e308, eta=0.0)
@given(st.floats(allow_nan=True, allow_infinity=True), st.floats(allow_nan=True, allow_infinity=True))
def test_numbers_that_json_does_not_know_never_reach_the_status(loss: float, eta: float) -> None:
    document = Progress(stage=Stage.TRAIN, loss=loss, eta_seconds=eta, updated_at=eta)
    json.dumps(progress.shown(document).model_dump(mode="json"), allow_nan=False)


# ---- the status ----


@given(st.dictionaries(st.sampled_from(["phase", "restarts", "attempts", "stages", "future"]), st.integers()))
def test_a_broken_status_is_no_reason_to_stop(values: dict[str, Any]) -> None:
    assert isinstance(read_status(values), OCRFineTuneStatus)


def test_the_status_stays_within_its_budget() -> None:
    failure_ = Failure(failure_class=FailureClass.DATA, stage=Stage.TRAIN, message="m" * 2000, log_tail="l" * 2000)
    attempts = [_attempt(n + 1, reason="r" * 2000, node="n" * 200) for n in range(MAX_ATTEMPTS)]
    status = OCRFineTuneStatus(failure=failure_, attempts=attempts)
    assert len(json.dumps(status.to_dict())) > MAX_STATUS_BYTES
    small = status_writer.bounded(status)
    assert len(json.dumps(small.to_dict())) <= MAX_STATUS_BYTES
    assert small.attempts[-1] == status.attempts[-1]


def test_a_patch_removes_what_is_gone_and_leaves_what_it_does_not_know() -> None:
    before = {"phase": "Failed", "failure": {"class": "Data", "stage": "train"}, "fromTheFuture": 1}
    wanted = read_status(before).model_copy(update={"failure": None, "phase": Phase.TRAINING})
    patch = status_writer.patch(before, wanted)
    assert patch["failure"] is None
    assert patch["phase"] == "Training"
    assert "fromTheFuture" not in patch
    assert status_writer.patch(before, read_status(before)) == {}


# ---- the decision, for what is too odd to happen often ----


def _run(**fields: Any) -> RunView:
    values: dict[str, Any] = {"namespace": "n", "name": "r", "uid": "u" * 36, "resource_version": "1", "generation": 1,
                              "created": 0.0, "deleting": False, "stop": "", "spec": SPEC, "status": {}}  # fmt: skip
    return RunView(**(values | fields))


def _observe(run: RunView, **facts: Any) -> Observation:
    return Observation(run=run, jobs=(), pods=(), now=1000.0, rules=Rules(), facts=Facts(**facts))


@pytest.mark.parametrize(
    "spec", [{}, {"model": 5}, {"model": {"name": "x" * 20000}}, {"dataset": [[]]}, SPEC | {"policy": None}]
)
def test_any_spec_is_answered_by_a_condition(spec: dict[str, Any]) -> None:
    decision = decide(_observe(_run(spec=spec)))
    accepted = decision.draft.status.condition("Accepted")
    assert accepted is not None
    assert (accepted.status, accepted.reason) == ("False", "Unparseable")


def test_a_run_that_is_being_deleted_gets_nothing_more() -> None:
    draft = decide(_observe(_run(deleting=True), problems=())).draft
    assert not draft.before
    assert not draft.after


def test_a_decision_made_twice_is_the_same() -> None:
    first, second = (decide(_observe(_run(), problems=())) for _ in range(2))
    assert first.draft == second.draft
    assert [type(action).__name__ for action in first.draft.after]


def test_a_lost_snapshot_is_told_and_the_spec_at_hand_taken() -> None:
    run = _run(status={"specHash": "other", "phase": "Pending"})
    assert [need.what for need in decide(_observe(run)).needs] == ["snapshot"]
    draft = decide(_observe(run, snapshot_lost=True)).draft
    assert "SnapshotLost" in [note.reason for note in draft.notes]


# ---- queue, limiter, settings, profiles ----


def test_the_queue_keeps_one_worker_a_key_and_loses_no_event() -> None:
    async def scenario() -> None:
        now = [0.0]
        queue: WorkQueue[str] = WorkQueue(clock=lambda: now[0])
        queue.add("a")
        queue.add("a")
        queue.add("b", delay=5)
        assert (await queue.take())[0] == "a"
        queue.add("a")  # while it is worked on
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(queue.take(), timeout=0.05)
        queue.done("a", again_in=100)
        assert (await queue.take())[0] == "a"
        delays = []
        for _ in range(3):
            delays.append(queue.failed("a"))
            now[0] += delays[-1]
            if now[0] >= 5:
                queue.forget("b")
            assert (await queue.take())[0] == "a"
        assert delays[0] < delays[1] < delays[2]

    asyncio.run(scenario())


def test_urgent_writes_go_first() -> None:
    async def scenario() -> list[str]:
        now = [0.0]
        limiter = Limiter(per_second=100, clock=lambda: now[0], burst=0)
        order: list[str] = []

        async def write(name: str, *, urgent: bool) -> None:
            await limiter.acquire(urgent=urgent)
            order.append(name)

        async def pass_time() -> None:
            while len(order) < 6:
                now[0] += 0.01
                await asyncio.sleep(0.01)

        # No time passes before all have asked.
        await asyncio.gather(
            *(write("cosmetic", urgent=False) for _ in range(3)),
            *(write("urgent", urgent=True) for _ in range(3)),
            pass_time(),
        )
        return order

    # The first one found nobody waiting.
    assert asyncio.run(scenario()) == ["cosmetic", *["urgent"] * 3, *["cosmetic"] * 2]


def test_settings_come_from_flags_before_the_environment() -> None:
    environment = {"OCRFT_OPERATOR_WORKERS": "4", "OCRFT_OPERATOR_NAMESPACES": "a, b", "OCRFT_OPERATOR_FS_GROUP": ""}
    loaded = settings.load(["--workers=8", "--port", "0"], environment)
    assert (loaded.workers, loaded.namespaces, loaded.fs_group, loaded.port) == (8, ("a", "b"), None, 0)
    with pytest.raises(Exception, match="--workers") as refused:
        settings.load(["--workers=many", "--log-format=xml"], {})
    assert "--log-format" in str(refused.value)
    assert refused.value.exit_code == ExitCode.BAD_CONFIGURATION  # type: ignore[attr-defined]


def test_a_profile_fills_in_and_the_run_wins(tmp_path: Any) -> None:
    file = tmp_path / "profiles.yaml"
    file.write_text("a100: {pods: {image: big, nodeSelector: {gpu: a100}}, queue: {name: gpus}, env: {MIRROR: m}}")
    profile = profiles.load(str(file))["a100"]
    spec = profiles.apply(_spec(pods={"image": "mine"}), profile)
    assert (spec.pods.image, spec.pods.node_selector, spec.queue.name) == ("mine", {"gpu": "a100"}, "gpus")
    assert spec.pods.env == [{"name": "MIRROR", "value": "m"}]
    file.write_text("a100: {pods: {imge: big}}\nb: {queue: 5}")
    with pytest.raises(Exception, match="imge") as refused:
        profiles.load(str(file))
    assert "b.queue" in str(refused.value)


# ---- watches that are behind one another ----


def _job(**fields: Any) -> JobView:
    values: dict[str, Any] = {
        "name": "r-prepare-1", "uid": "job", "owner_uid": "u" * 36, "stage": Stage.PREPARE, "attempt": 1,
        "parallelism": 1, "suspended": False, "started": 900.0, "deleting": False, "complete": False, "failed": False,
        "failure_message": "", "created": 900.0,
    }  # fmt: skip
    return JobView(**(values | fields))


def test_a_job_that_ended_is_not_judged_by_pods_that_are_older() -> None:
    """The watch of Jobs may be ahead of that of pods: a result that has not come yet is not lost."""
    begun = decide(_observe(_run(), problems=())).draft.status
    run = _run(status=begun.to_dict())
    behind = _pod(0, job="r-prepare-1")
    ended = _pod(
        0, code=0, job="r-prepare-1", exit_message=StageResult(stage=Stage.PREPARE, input_hash="").short_form()
    )
    for job in (_job(complete=True), _job(failed=True)):
        asked = decide(replace(_observe(run), jobs=(job,), pods=(behind,)))
        assert [need.what for need in asked.needs] == ["pods"]
    known = decide(replace(_observe(run), jobs=(_job(complete=True),), pods=(ended,)))
    assert not known.needs
    assert known.draft.status.stage(Stage.PREPARE).state is StageState.SUCCEEDED
    read = replace(_observe(run, read_pods=frozenset({"r-prepare-1"})), jobs=(_job(complete=True),), pods=(behind,))
    assert decide(read).draft.status.attempts[0].reason == "ResultLost"
