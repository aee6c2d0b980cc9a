"""Somebody edits or deletes by hand what the operator has made: it is put right, or told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from kube_testing.client import Manifest, condition
from kube_testing.control_plane import ControlPlane
from operator_proxy import proxied
from operator_testing import PATIENCE, Operator, World, succeeds

from ocr_finetune_api.plan import Stage


@pytest.fixture
def trained(plane: ControlPlane, installed: Path, world: World, alone: None) -> Any:
    """An operator that looks after what it made every second, and a run whose training goes on."""
    operator = Operator(plane, kubeconfig=installed, name="careful", namespaces=world.namespace, relist_interval="1")
    succeeds(world.pods, Stage.PREPARE)
    world.create(distributed={"nodes": 2}, policy={"maxRestarts": 0})
    world.running("plates-train-1", 2)
    world.wait(lambda status: status["attempts"][-1].get("activeSince"))
    yield operator
    plane.forget(operator.process)


DELETED = {"ConfigMap": "plates-train-1", "Service": "plates-train", "NetworkPolicy": "plates-pods"}


@pytest.mark.parametrize("kind", DELETED)
def test_what_is_deleted_while_it_is_needed_is_made_again(trained: Operator, world: World, kind: str) -> None:
    before = _found(world, kind, DELETED[kind])
    world.kube.delete(kind, DELETED[kind], world.namespace)
    after = world.kube.wait(
        kind, DELETED[kind], world.namespace, lambda one: one["metadata"]["uid"] != before["metadata"]["uid"]
    )
    part = "data" if kind == "ConfigMap" else "spec"
    ours = {key: value for key, value in before[part].items() if not key.startswith("clusterIP")}
    assert {key: value for key, value in after[part].items() if not key.startswith("clusterIP")} == ours
    assert f"{kind} {DELETED[kind]} was deleted" in world.wait_event("Repaired")
    _training_goes_on(world)


EDITED: dict[str, tuple[str, Manifest]] = {
    "Service": ("plates-train", {"spec": {"selector": {"app": "other"}, "publishNotReadyAddresses": False}}),
    "NetworkPolicy": ("plates-pods", {"spec": {"ingress": []}}),
}


@pytest.mark.parametrize("kind", EDITED)
def test_what_is_edited_while_it_is_needed_is_put_right(trained: Operator, world: World, kind: str) -> None:
    name, edit = EDITED[kind]
    before = _found(world, kind, name)
    world.kube.patch(kind, name, world.namespace, edit)
    world.kube.wait(kind, name, world.namespace, lambda one: one["spec"] == before["spec"], timeout=PATIENCE)
    assert f"{kind} {name} was changed" in world.wait_event("Repaired")
    _training_goes_on(world)


def test_a_configuration_that_says_something_else_is_replaced(trained: Operator, world: World) -> None:
    before = _found(world, "ConfigMap", "plates-train-1")
    # It would make a new one between the two.
    trained.process.kill()
    world.kube.delete("ConfigMap", "plates-train-1", world.namespace)
    owner = {key: before["metadata"][key] for key in ("name", "namespace", "labels", "ownerReferences")}
    forged = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": owner, "data": {"run.yaml": "nodes: 64\n"}}
    world.kube.create(forged)
    trained.process.start()
    world.kube.wait("ConfigMap", "plates-train-1", world.namespace, lambda one: one["data"] == before["data"])


JOB_EDITS: dict[str, tuple[Manifest, str]] = {
    "labels": ({"metadata": {"labels": {"ocrfinetune.dev/run": None, "ocrfinetune.dev/stage": None}}}, "labels"),
    "stage": ({"metadata": {"labels": {"ocrfinetune.dev/stage": "export"}}}, "labels"),
    "size": ({"spec": {"parallelism": 1, "completions": 1}}, "parallelism was changed from 2 to 1"),
    "nothing": ({"spec": {"parallelism": 0, "completions": 0}}, "parallelism was changed from 2 to 0"),
}


@pytest.mark.parametrize("edit", JOB_EDITS)
def test_a_job_that_was_changed_is_replaced(trained: Operator, world: World, edit: str) -> None:
    patch, words = JOB_EDITS[edit]
    world.kube.patch("Job", "plates-train-1", world.namespace, patch)
    world.running("plates-train-2", 2)
    status = world.wait(lambda status: status.get("disruptions") == 1)
    assert (status["restarts"], status["phase"]) == (0, "Training")
    assert words in world.wait_event("JobChanged")
    world.kube.wait_gone("Job", "plates-train-1", world.namespace, timeout=PATIENCE)


def test_a_job_that_was_emptied_and_ended_while_nobody_looked_is_replaced(trained: Operator, world: World) -> None:
    """Without pods to wait for, Kubernetes takes a Job for complete."""
    trained.process.kill()
    world.kube.patch("Job", "plates-train-1", world.namespace, {"spec": {"parallelism": 0, "completions": 0}})
    world.kube.wait("Job", "plates-train-1", world.namespace, lambda job: condition(job, "Complete"))
    trained.process.start()
    world.running("plates-train-2", 2)
    assert "parallelism was changed from 2 to 0" in world.wait_event("JobChanged")
    assert world.wait(lambda status: status.get("disruptions") == 1)["restarts"] == 0


def test_a_job_that_somebody_suspends_is_shown_as_waiting(trained: Operator, world: World) -> None:
    world.kube.patch("Job", "plates-train-1", world.namespace, {"spec": {"suspend": True}})
    world.wait_phase("Queued")
    assert world.condition("Admitted", "False")["message"]
    world.kube.patch("Job", "plates-train-1", world.namespace, {"spec": {"suspend": False}})
    world.wait_phase("Training")
    assert world.jobs(Stage.TRAIN) == ["plates-train-1"]


def test_what_was_deleted_between_two_attempts_is_there_for_the_next(operator: Operator, world: World) -> None:
    succeeds(world.pods, Stage.PREPARE)
    world.create()
    world.running("plates-train-1")
    world.kube.patch("Service", "plates-train", world.namespace, {"spec": {"selector": {"app": "other"}}})
    world.kube.delete("ConfigMap", "plates-train-1", world.namespace)
    world.kube.delete("Pod", world.running("plates-train-1")[0]["metadata"]["name"], world.namespace)
    world.running("plates-train-2")
    selector = _found(world, "Service", "plates-train")["spec"]["selector"]
    assert selector == {"ocrfinetune.dev/run": "plates", "ocrfinetune.dev/stage": "train"}
    world.kube.delete("Service", "plates-train", world.namespace)
    world.kube.delete("Pod", world.running("plates-train-2")[0]["metadata"]["name"], world.namespace)
    world.running("plates-train-3")
    assert _found(world, "Service", "plates-train")


@pytest.mark.parametrize("first", ["jobs", "runs"])
def test_a_lost_status_is_taken_up_from_the_jobs(
    plane: ControlPlane, installed: Path, world: World, alone: None, first: str
) -> None:
    """Whether it learns of the run first, or of its Jobs: nothing is done twice."""
    succeeds(world.pods, Stage.PREPARE)
    with proxied(plane, installed, world.namespace) as (proxy, operator):
        world.create()
        world.running("plates-train-1")
        operator.process.kill()
        world.kube.patch("OCRFineTune", "plates", world.namespace, {"status": None}, subresource="status")
        proxy.held = ("/jobs",) if first == "runs" else ("watch=",)
        operator.process.start()
        status = world.wait_phase("Training")
        assert world.jobs() == ["plates-prepare-1", "plates-train-1"]
        assert status["attempts"][-1]["number"] == 1
        if first == "jobs":
            assert world.wait_event("Adopted")
        jobs = [request for request in proxy.done if request.startswith("POST") and request.endswith("/jobs")]
        assert len(jobs) == 2


def _found(world: World, kind: str, name: str) -> Manifest:
    found = world.kube.get(kind, name, world.namespace)
    assert found is not None
    return found


def _training_goes_on(world: World) -> None:
    assert world.jobs(Stage.TRAIN) == ["plates-train-1"]
    status = world.wait_phase("Training")
    assert (status.get("restarts", 0), status.get("disruptions", 0)) == (0, 0)
