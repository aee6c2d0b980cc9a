"""What becomes of a run when its pods fail, by the class of the failure."""

from __future__ import annotations

import pytest
from kube_testing.client import Manifest, condition
from kube_testing.processes import DeadlineError, wait_for
from operator_testing import (
    LABEL_ATTEMPT,
    LABEL_RUN,
    LABEL_STAGE,
    PATIENCE,
    Operator,
    World,
    progress_server,
    result,
    succeeds,
)

from ocr_finetune_api.plan import Stage

PREPARE = {LABEL_STAGE: "prepare"}
# Exit code, reason of the container, the trainer's word, what the run is to become, its class and number of attempts.
FOR_GOOD = {
    "data": (65, "Error", 65, "Data", 1),
    "missing": (66, "Error", 66, "Data", 1),
    "configuration": (78, "Error", 78, "UserError", 1),
    "gate": (80, "Error", 80, "Gate", 1),
    "diverged": (82, "Error", 82, "Diverged", 1),
    "memory": (137, "OOMKilled", 0, "OutOfMemory", 1),
    "storage": (74, "Error", 74, "Storage", 2),
    "device": (81, "Error", 81, "Device", 2),
    "internal": (70, "Error", 70, "Internal", 2),
    "segfault": (139, "Error", 0, "Internal", 2),
    "rendezvous": (69, "Error", 69, "Rendezvous", 2),
}


def test_each_class_of_failure_ends_or_is_retried_as_it_should(operator: Operator, world: World) -> None:
    world.pods.log("first line\nlast words of the trainer")
    for name, (code, reason, told, _, _) in FOR_GOOD.items():
        message = result(Stage.PREPARE, told, message=f"why {name}", hint=f"do {name}") if told else ""
        world.pods.exits(code=code, reason=reason, message=message, labels=PREPARE | {LABEL_RUN: name})
    for name in FOR_GOOD:
        world.create(name, policy={"maxRestarts": 1})
    for name, (code, _, told, failure_class, attempts) in FOR_GOOD.items():
        status = world.wait_phase("Failed", name)
        failure = status["failure"]
        assert (name, failure["class"]) == (name, failure_class)
        assert (name, len(status["attempts"])) == (name, attempts)
        assert status["restarts"] == attempts - 1
        assert failure["exitCode"] == code
        assert failure["rank"] == 0
        assert failure["node"].startswith("node-")
        assert failure["hint"] == (f"do {name}" if told else failure["hint"])
        assert failure["hint"]
        assert failure["message"] == f"why {name}" if told else failure["message"]
        assert "last words of the trainer" in failure["logTail"]
        assert len(world.jobs(name=name)) == attempts
    operator.wait_metric('ocrfinetune_attempts_total{failure_class="Gate",outcome="Failed",stage="prepare"}', 1)
    assert world.wait_event("Failed")


def test_the_root_cause_is_the_rank_that_failed_by_itself(operator: Operator, world: World) -> None:
    succeeds(world.pods, Stage.PREPARE)
    train = {LABEL_STAGE: "train"}
    world.create(distributed={"nodes": 3}, policy={"maxRestarts": 0})
    world.running("plates-train-1", 3)
    # Rank 2 crashes and can't say anything; rank 0 notices that it lost a peer, and says so: before the Job's
    # controller ends the rest for the first of them.
    lost = result(Stage.TRAIN, 69, message="a peer is gone")
    with world.plane.paused("kube-controller-manager"):
        world.pods.exits(code=139, index=2, labels=train)
        world.running("plates-train-1", 2)
        world.pods.exits(code=69, message=lost, index=0, labels=train)
        world.running("plates-train-1", 1)
    failure = world.wait_phase("Failed")["failure"]
    assert (failure["class"], failure["rank"], failure["exitCode"]) == ("Internal", 2, 139)


def test_a_drained_node_costs_no_restart(operator: Operator, world: World) -> None:
    succeeds(world.pods, Stage.PREPARE)
    world.pods.ends_when_deleted(code=75, message=result(Stage.TRAIN, 75))
    world.create(distributed={"nodes": 2}, policy={"maxRestarts": 0})
    pod = world.running("plates-train-1", 2)[1]
    world.kube.evict(pod["metadata"]["name"], world.namespace)
    world.running("plates-train-2", 2)
    status = world.wait(lambda s: s.get("disruptions") == 1)
    assert (status["restarts"], status["phase"]) == (0, "Training")
    first = next(one for one in status["attempts"] if one["stage"] == "train")
    assert (first["outcome"], first["failureClass"]) == ("Disrupted", "Preempted")
    assert status["failure"]["class"] == "Preempted"


def test_a_deleted_pod_and_a_deleted_job_are_made_up_for(operator: Operator, world: World) -> None:
    succeeds(world.pods, Stage.PREPARE)
    world.create(policy={"maxRestarts": 0})
    pod = world.running("plates-train-1")[0]
    world.kube.delete("Pod", pod["metadata"]["name"], world.namespace)
    world.running("plates-train-2")
    world.wait(lambda s: s["attempts"][-1].get("activeSince"))
    world.kube.delete("Job", "plates-train-2", world.namespace)
    world.running("plates-train-3")
    status = world.wait(lambda s: s.get("disruptions") == 2)
    assert [one.get("reason") for one in status["attempts"]][1:3] == ["PodDeleted", "JobDeleted"]
    assert status["restarts"] == 0
    assert world.wait_event("JobDeleted")


def test_a_result_that_cannot_be_read_is_asked_for_again(operator: Operator, world: World) -> None:
    prepare = {LABEL_STAGE: "prepare"}
    world.pods.succeeds(message="{half a docu", labels=prepare | {"ocrfinetune.dev/attempt": "1"})
    world.pods.succeeds(message=result(Stage.PREPARE), labels=prepare | {"ocrfinetune.dev/attempt": "2"})
    world.create(policy={"maxRestarts": 0})
    world.job("plates-train-1")
    status = world.wait(lambda s: len(s.get("attempts", [])) == 3)
    assert [one.get("reason") for one in status["attempts"][:2]] == ["ResultLost", "Succeeded"]
    assert status["restarts"] == 0


def test_an_image_that_cannot_be_pulled_is_told_at_once_and_ends_the_attempt_in_time(
    operator: Operator, world: World
) -> None:
    world.pods.image_cannot_be_pulled()
    world.create(policy={"maxRestarts": 0})
    said = world.wait(lambda s: any(c["reason"] == "ImagePullBackOff" for c in s.get("conditions", [])))
    assert world.wait_event("ImagePullBackOff")
    assert said["phase"] == "Preparing"
    world.patch({"policy": {"startupTimeout": "1s"}})
    failure = world.wait_phase("Failed")["failure"]
    assert failure["class"] == "ImagePull"
    assert "Back-off pulling image" in failure["message"]


def test_pods_that_find_no_node_are_told_at_once_and_end_the_attempt_in_time(operator: Operator, world: World) -> None:
    world.create(policy={"maxRestarts": 0}, pods={"nodeSelector": {"own": "nowhere"}})
    said = world.wait(lambda s: any(c["reason"] == "Unschedulable" for c in s.get("conditions", [])))
    assert said["phase"] == "Preparing"
    world.patch({"policy": {"startupTimeout": "1s"}})
    failure = world.wait_phase("Failed")["failure"]
    assert failure["class"] == "Unschedulable"
    assert "1 of 1 pods have no node" in failure["message"]
    world.kube.wait_gone("Job", "plates-prepare-1", world.namespace, timeout=PATIENCE)


def test_a_stall_is_an_unchanged_step_while_reachable(operator: Operator, world: World) -> None:
    succeeds(world.pods, Stage.PREPARE)
    world.create(policy={"maxRestarts": 0, "stallTimeout": "3s"})
    (pod,) = world.running("plates-train-1")
    document = {"stage": "train", "activity": "evaluating", "step": 7, "steps": 100, "attempt": 1}
    with progress_server(pod["status"]["podIP"], lambda: document):
        world.wait(lambda s: s.get("progress", {}).get("activity") == "evaluating")
        # Evaluating makes no steps and is no stall.
        with pytest.raises(DeadlineError):
            world.wait_phase("Failed", timeout=4)
        document["activity"] = "training"
        failure = world.wait_phase("Failed")["failure"]
    assert failure["class"] == "Stalled"
    assert "step 7" in failure["message"]
    world.kube.wait_gone("Job", "plates-train-1", world.namespace, timeout=PATIENCE)


def test_ranks_that_never_meet_are_given_up(operator: Operator, world: World) -> None:
    succeeds(world.pods, Stage.PREPARE)
    world.create(policy={"maxRestarts": 0, "rendezvousTimeout": "3s"})
    (pod,) = world.running("plates-train-1")
    waiting = {"stage": "train", "attempt": 1, "activity": "waiting"}
    with progress_server(pod["status"]["podIP"], lambda: waiting):
        failure = world.wait_phase("Failed")["failure"]
    assert failure["class"] == "Rendezvous"
    assert "have not met within 3s" in failure["message"]


def test_a_trainer_that_cannot_be_reached_is_no_stall(operator: Operator, world: World) -> None:
    succeeds(world.pods, Stage.PREPARE)
    world.create(policy={"stallTimeout": "2s"})
    world.running("plates-train-1")
    world.condition("ProgressAvailable", "False")
    with pytest.raises(DeadlineError):
        world.wait(lambda s: s["phase"] != "Training", timeout=4)


def test_a_dead_node_is_given_up_and_only_then_the_next_attempt_starts(
    operator: Operator, world: World, request: pytest.FixtureRequest
) -> None:
    nodes, own = world.plane.nodes, {"own": world.namespace}
    for number in (0, 1):
        name = f"{world.namespace[:40]}-{number}"
        nodes.add(name, labels=own)
        request.addfinalizer(lambda name=name: nodes.remove(name))
    succeeds(world.pods, Stage.PREPARE)
    world.create(policy={"nodeLostGrace": "4s"}, pods={"nodeSelector": own})
    (pod,) = world.running("plates-train-1")
    nodes.fail(pod["spec"]["nodeName"])

    def next_attempt() -> bool:
        started = "plates-train-2" in world.jobs(Stage.TRAIN)
        # Looked at after the Jobs: a pod that is still there now was there when the next attempt started.
        assert not (started and world.kube.get("Pod", pod["metadata"]["name"], world.namespace))
        return started

    wait_for(next_attempt, describe="the next attempt", timeout=PATIENCE)
    second = world.running("plates-train-2")[0]
    assert second["spec"]["nodeName"] != pod["spec"]["nodeName"]
    status = world.wait(lambda s: s.get("disruptions") == 1)
    assert status["failure"]["class"] == "NodeLost"
    assert status["failure"]["node"] == pod["spec"]["nodeName"]
    assert status["restarts"] == 0


def test_a_node_that_failed_twice_is_avoided(operator: Operator, world: World, request: pytest.FixtureRequest) -> None:
    own = {"own": world.namespace}
    for number in (0, 1):
        name = f"{world.namespace[:40]}-{number}"
        world.plane.nodes.add(name, labels=own)
        request.addfinalizer(lambda name=name: world.plane.nodes.remove(name))
    succeeds(world.pods, Stage.PREPARE)
    world.create(policy={"maxRestarts": 3}, pods={"nodeSelector": own})
    seen: list[str] = []
    # Of three attempts on two nodes, two are on the same.
    for attempt in (1, 2, 3, 4):
        (pod,) = world.running(f"plates-train-{attempt}")
        seen.append(pod["spec"]["nodeName"])
        failed_twice = sorted({node for node in seen[:-1] if seen[:-1].count(node) >= 2})
        assert _avoided(pod) == failed_twice
        if failed_twice:
            break
        labels = {LABEL_ATTEMPT: str(attempt), LABEL_STAGE: "train"}
        world.pods.exits(code=81, message=result(Stage.TRAIN, 81), labels=labels)
    assert failed_twice


def _avoided(pod: Manifest) -> list[str]:
    affinity = pod["spec"].get("affinity", {}).get("nodeAffinity", {})
    terms = affinity.get("requiredDuringSchedulingIgnoredDuringExecution", {}).get("nodeSelectorTerms", [])
    return sorted(value for term in terms for field in term.get("matchFields", []) for value in field["values"])


def test_elastic_training_goes_on_with_the_nodes_there_are(
    operator: Operator, world: World, request: pytest.FixtureRequest
) -> None:
    own, nodes = {"own": world.namespace}, world.plane.nodes
    name = f"{world.namespace[:40]}-gpu"
    nodes.add(name, labels=own)
    request.addfinalizer(lambda: nodes.remove(name))
    # It looks at the nodes when it starts, and then only once a minute.
    operator.process.kill()
    operator.process.start()
    operator.wait_ready()
    succeeds(world.pods, Stage.PREPARE)
    gpus = {"device": "gpu", "nodes": 2, "minNodes": 1, "devicesPerNode": 8}
    world.create(distributed=gpus, pods={"nodeSelector": own}, policy={"maxRestarts": 0})
    world.wait(lambda s: (condition({"status": s}, "Training", "False") or {}).get("reason") == "Unschedulable")
    # Nothing goes until the next attempt may take its time again.
    with world.plane.paused("kube-controller-manager"):
        world.patch({"policy": {"startupTimeout": "1s"}})
        world.wait(lambda s: s["attempts"][-1].get("failureClass") == "Unschedulable")
        world.change({"policy": {"startupTimeout": "10m"}})
    (pod,) = world.running("plates-train-2")
    status = world.wait(lambda s: s["attempts"][-1]["stage"] == "train" and s["attempts"][-1]["number"] == 2)
    assert [(one["nodes"], one.get("failureClass")) for one in status["attempts"][1:]] == [
        (2, "Unschedulable"),
        (1, None),
    ]
    assert (status["restarts"], status["phase"]) == (0, "Training")
    job = world.job("plates-train-2")
    assert job["spec"]["completions"] == 1
    configuration = world.kube.get("ConfigMap", "plates-train-2", world.namespace)
    assert configuration is not None
    assert "\nnodes: 1\n" in configuration["data"]["run.yaml"]
    assert wait_for(lambda: world.events("Shrunk"), describe="an event")
    # It grows back when it has to start again anyway.
    nodes.add(f"{name}-2", labels=own)
    request.addfinalizer(lambda: nodes.remove(f"{name}-2"))
    world.kube.delete("Pod", pod["metadata"]["name"], world.namespace)
    assert len(world.running("plates-train-3", 2)) == 2


def test_a_run_has_only_so_much_time(operator: Operator, world: World) -> None:
    succeeds(world.pods, Stage.PREPARE)
    world.create(policy={"activeDeadline": "2s"})
    status = world.wait_phase("Failed")
    assert "activeDeadline" in status["failure"]["message"]
    world.kube.wait_gone("Job", "plates-train-1", world.namespace, timeout=PATIENCE)
