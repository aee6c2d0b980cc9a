"""Faults in the middle of real training: each run ends with the model it would have had, or says rightly why not."""

from __future__ import annotations

import itertools
import json
import os
import secrets
import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from cluster_testing import images, release
from cluster_testing.cluster import CHART
from cluster_testing.runs import Run, seconds
from kube_testing.client import condition
from kube_testing.processes import wait_for

from next_chart import next_chart

if TYPE_CHECKING:
    from pathlib import Path

    from cluster_testing.cluster import Cluster
    from cluster_testing.volumes import SharedVolumes
    from kube_testing.client import Manifest

Start = Callable[..., Run]

_EVERY = 20
# Short, but long enough to be hit in the middle, and clocks that tests can wait for.
_LONG: dict[str, Any] = {
    "training": {
        "epochs": 6,
        "earlyStopping": {"patience": 1000},
        "evaluate": {"every": "40 steps"},
        "checkpoint": {"everySteps": _EVERY, "keepLast": 3},
    },
    "evaluation": {"gate": {"metric": "accuracy", "min": 0.5}},
    "policy": {
        "gracePeriod": "20s",
        "startupTimeout": "60s",
        "rendezvousTimeout": "90s",
        "stallTimeout": "20s",
        "nodeLostGrace": "5s",
    },
}
_WORKER = "ocr_finetune_trainer.training.worker"


@pytest.fixture(scope="module")
def undisturbed(cluster: Cluster, operator: str, volumes: SharedVolumes, digits: Path) -> dict[str, Any]:
    """The figures of the same training without any fault: with the same ranks it is repeatable to the last bit."""
    kept = cluster.folder / "undisturbed.json"
    if kept.exists():
        found: dict[str, Any] = json.loads(kept.read_text())
        return found
    namespace = f"undisturbed-{secrets.token_hex(3)}"
    cluster.plane.create_namespace(namespace, labels={"pod-security.kubernetes.io/enforce": "restricted"})
    volumes.fill("digits", namespace, digits)
    run = Run(cluster, namespace, volumes.claim("ocr-work", namespace), _LONG).apply()
    best: dict[str, Any] = run.wait_phase("Succeeded")["metrics"]["best"]
    kept.write_text(json.dumps(best))
    return best


def _succeeds(run: Run, undisturbed: dict[str, Any]) -> Manifest:
    """Waits for the end: the model has to be as good as the one that nothing disturbed, with little done twice."""
    status = run.wait_phase("Succeeded")
    assert status["metrics"]["best"]["accuracy"] == undisturbed["accuracy"]
    trained = [attempt for attempt in status["attempts"] if attempt["stage"] == "train"]
    for before, after in itertools.pairwise(trained):
        assert after["resumedFromStep"] > 0
        assert before["lastStep"] - after["resumedFromStep"] <= _EVERY, (before, after)
    return status


def _fails(run: Run, failure_class: str) -> Manifest:
    """Waits for the end, which has to be the failure of a class, with a message and a hint."""
    status = run.wait_phase("Failed")
    failure: Manifest = status["failure"]
    assert failure["class"] == failure_class, failure
    assert failure["message"]
    assert failure["hint"]
    return failure


def _pod_of_rank(run: Run, rank: int) -> Manifest:
    pods = wait_for(lambda: len(run.pods()) == 2 and run.pods(), describe="two training pods", timeout=120)
    return pods[rank]


def _steps_on(run: Run) -> bool:
    """Whether an attempt after the first has got beyond the checkpoint that it began at."""
    trained = run.attempts()
    progress = run.status().get("progress", {})
    return len(trained) > 1 and progress.get("step", 0) > trained[-1].get("resumedFromStep", 0) > 0


def _processes(cluster: Cluster, pod: Manifest, program: str) -> list[int]:
    node = cluster.nodes[pod["spec"]["nodeName"]]
    return node.processes_of_pod(pod["metadata"]["uid"], program=program)


def test_a_trainer_pod_that_is_killed_is_started_again_from_its_checkpoint(
    cluster: Cluster, start: Start, undisturbed: dict[str, Any], figures: dict[str, str]
) -> None:
    run = start(_LONG)
    run.wait_checkpoint()
    pod = _pod_of_rank(run, 1)
    killed = time.time()
    for pid in _processes(cluster, pod, ""):
        os.kill(pid, signal.SIGKILL)
    run.wait(lambda _: _steps_on(run), describe="steps of the second attempt")
    again = time.time()
    status = _succeeds(run, undisturbed)
    assert status["restarts"] == 1
    first, second = run.attempts()
    assert (first["failureClass"], first["node"]) == ("Internal", pod["spec"]["nodeName"])
    figures["a killed pod until training goes on"] = (
        f"{again - killed:.1f} s: the next attempt decided on after {seconds(second['startedAt']) - killed:.1f} s, its "
        f"pods running after {seconds(second['runningAt']) - killed:.1f} s"
    )


def test_a_lost_node_costs_no_restart(cluster: Cluster, start: Start, undisturbed: dict[str, Any]) -> None:
    run = start(_LONG)
    run.wait_checkpoint()
    node = cluster.nodes[_pod_of_rank(run, 1)["spec"]["nodeName"]]
    node.power_off()
    try:
        run.wait(lambda status: status.get("disruptions", 0) >= 1, describe="a disruption", timeout=120)
    finally:
        node.recover()
    status = _succeeds(run, undisturbed)
    assert run.attempts()[0]["failureClass"] == "NodeLost"
    assert status.get("restarts", 0) == 0


def test_a_drained_node_costs_no_restart(cluster: Cluster, start: Start, undisturbed: dict[str, Any]) -> None:
    run = start(_LONG)
    run.wait_checkpoint()
    pod = _pod_of_rank(run, 1)
    name = pod["spec"]["nodeName"]
    cluster.kube.patch("Node", name, None, {"spec": {"unschedulable": True}})
    try:
        cluster.kube.evict(pod["metadata"]["name"], run.namespace)
        run.wait(lambda status: status.get("disruptions", 0) >= 1, describe="a disruption", timeout=120)
    finally:
        cluster.kube.patch("Node", name, None, {"spec": {"unschedulable": None}})
    status = _succeeds(run, undisturbed)
    assert run.attempts()[0]["failureClass"] == "Preempted"
    assert status.get("restarts", 0) == 0


def test_an_operator_that_dies_in_every_stage_loses_and_repeats_nothing(
    cluster: Cluster, operator: str, start: Start, undisturbed: dict[str, Any]
) -> None:
    run = start(_LONG)
    for phase in ("Preparing", "Training", "Evaluating", "Exporting"):
        run.wait_phase(phase)
        leader = release.leader(cluster, namespace=operator)
        for pod in release.pods(cluster, namespace=operator):
            # Both replicas at once in one stage, only the leader in the others.
            if phase == "Training" or pod["metadata"]["name"] == leader:
                cluster.kube.delete("Pod", pod["metadata"]["name"], operator, grace=0)
    status = _succeeds(run, undisturbed)
    assert [attempt["stage"] for attempt in status["attempts"]] == ["prepare", "train", "evaluate", "export"]
    release.wait_ready(cluster, namespace=operator)


def test_the_other_operator_takes_over_when_the_leader_is_killed(
    cluster: Cluster, operator: str, start: Start, undisturbed: dict[str, Any], figures: dict[str, str]
) -> None:
    run = start(_LONG)
    run.wait_checkpoint()
    leader = release.leader(cluster, namespace=operator)
    found = release.pods(cluster, namespace=operator)
    assert len(found) == 2
    (pod,) = [pod for pod in found if pod["metadata"]["name"] == leader]
    killed = time.monotonic()
    # SIGKILL in the container: nobody gives the Lease back.
    for pid in _processes(cluster, pod, "ocr_finetune_operator"):
        os.kill(pid, signal.SIGKILL)
    after = wait_for(
        lambda: (now := release.leader(cluster, namespace=operator)) != leader and now,
        describe="the other replica to lead",
        timeout=60,
    )
    figures["a killed leader until the other operator leads"] = f"{time.monotonic() - killed:.1f} s"
    assert after in {pod["metadata"]["name"] for pod in found}
    status = _succeeds(run, undisturbed)
    assert [attempt["stage"] for attempt in status["attempts"]] == ["prepare", "train", "evaluate", "export"]
    release.wait_ready(cluster, namespace=operator)


def test_training_goes_on_while_etcd_and_api_server_are_away(
    cluster: Cluster, start: Start, undisturbed: dict[str, Any]
) -> None:
    run = start(_LONG)
    run.wait_checkpoint()
    cluster.plane.restart_etcd()
    cluster.plane.restart_api_server()
    status = _succeeds(run, undisturbed)
    assert len([attempt for attempt in status["attempts"] if attempt["stage"] == "train"]) == 1


def test_a_damaged_checkpoint_is_passed_over(start: Start, undisturbed: dict[str, Any]) -> None:
    run = start(_LONG)
    run.wait_checkpoint(beyond=_EVERY)
    run.patch({"policy": {"suspend": True}})
    run.wait_phase("Suspended", timeout=120)
    run.wait_pods_gone()
    newest = max(run.folder().glob("checkpoints/[0-9]*/manifest.json"), key=lambda path: path.parent.name).parent
    for file in newest.glob("*.safetensors"):
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 0xFF
        file.write_bytes(content)
    run.patch({"policy": {"suspend": False}})
    _succeeds(run, undisturbed)
    resumed = run.attempts()[-1]["resumedFromStep"]
    assert 0 < resumed < int(newest.name.split(".")[0])


def test_suspend_saves_and_resume_goes_on(start: Start, undisturbed: dict[str, Any]) -> None:
    run = start(_LONG)
    run.wait_checkpoint()
    run.patch({"policy": {"suspend": True}})
    run.wait_phase("Suspended", timeout=120)
    run.wait_pods_gone()
    saved = max(run.checkpoints())
    run.patch({"policy": {"suspend": False}})
    status = _succeeds(run, undisturbed)
    assert status.get("restarts", 0) == 0
    assert run.attempts()[-1]["resumedFromStep"] == saved


def test_a_rank_that_is_stopped_is_a_stall(cluster: Cluster, start: Start, undisturbed: dict[str, Any]) -> None:
    run = start(_LONG)
    run.wait_checkpoint()
    pod = _pod_of_rank(run, 1)
    for pid in _processes(cluster, pod, _WORKER):
        os.kill(pid, signal.SIGSTOP)
    status = _succeeds(run, undisturbed)
    assert run.attempts()[0]["failureClass"] == "Stalled"
    assert status["restarts"] == 1


def test_a_full_claim_is_a_storage_failure(
    cluster: Cluster, operator: str, namespace: str, volumes: SharedVolumes, start: Start
) -> None:
    volumes.claim("small", namespace, folder=cluster.small_folder)
    changes = _LONG | {"workspace": {"claimName": "small"}, "policy": _LONG["policy"] | {"maxRestarts": 1}}
    run = start(changes)
    run.work = cluster.small_folder
    run.wait_phase("Training")
    filler = cluster.small_folder / "filler"
    with filler.open("wb") as file:
        try:
            while True:
                file.write(b"\0" * 65536)
                file.flush()
        except OSError:
            pass
    try:
        failure = _fails(run, "Storage")
        assert failure["exitCode"] in {73, 74}
    finally:
        filler.unlink()


def test_an_image_that_does_not_exist_is_named(start: Start) -> None:
    changes = {"pods": {"image": "localhost/no-such-trainer:1"}, "policy": {"startupTimeout": "10s", "maxRestarts": 0}}
    failure = _fails(start(changes), "ImagePull")
    assert "localhost/no-such-trainer:1" in failure["message"]


def test_a_pod_without_enough_memory_is_out_of_memory(start: Start) -> None:
    limits = {"train": {"limits": {"memory": "300Mi"}}}
    changes = _LONG | {
        "pods": {"resources": limits, "sharedMemory": "16Mi"},
        "policy": _LONG["policy"] | {"maxRestarts": 0},
    }
    _fails(start(changes), "OutOfMemory")


def test_wrong_data_fails_before_training_and_is_not_tried_again(
    cluster: Cluster, namespace: str, volumes: SharedVolumes, start: Start
) -> None:
    folder = volumes.claim("nothing", namespace)
    (folder / "notes.txt").write_text("no pictures here")
    run = start({"dataset": {"train": [{"name": "none", "uri": "pvc://nothing", "format": "char-folders"}]}})
    failure = _fails(run, "Data")
    assert failure["stage"] == "prepare"
    assert len(run.status()["attempts"]) == 1


def test_an_upgrade_of_the_chart_leaves_training_alone(
    cluster: Cluster, operator: str, start: Start, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    run = start(_LONG)
    run.wait_checkpoint()
    release.upgrade(cluster, namespace=operator, values=release.VALUES, chart=next_chart(CHART, tmp_path))
    status = _succeeds(run, undisturbed)
    assert len([attempt for attempt in status["attempts"] if attempt["stage"] == "train"]) == 1
    assert condition(run.get(), "Complete")
    assert images.reference("trainer") == status["resolved"]["image"]
