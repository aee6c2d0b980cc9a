"""What a queue says about a run reaches the people who wait for it."""

from __future__ import annotations

from typing import Any

import pytest
from kube_testing.client import Manifest, condition
from kube_testing.control_plane import ControlPlane
from kube_testing.processes import wait_for
from operator_testing import Operator, World, succeeds

from ocr_finetune_api.plan import Stage

_OPEN = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
NO_QUOTA = "couldn't assign flavors to pod set main: insufficient unused quota for nvidia.com/gpu, 8 more needed"


@pytest.fixture(scope="session")
def kueue(plane: ControlPlane) -> None:
    """Kueue's Workloads, as far as anybody who reads them can tell."""
    names = {"kind": "Workload", "listKind": "WorkloadList", "plural": "workloads", "singular": "workload"}
    version = {"name": "v1beta1", "served": True, "storage": True, "schema": {"openAPIV3Schema": _OPEN}}
    plane.kube.create(
        {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {
                "name": "workloads.kueue.x-k8s.io",
                "annotations": {"api-approved.kubernetes.io": "unapproved, a stand-in for tests"},
            },
            "spec": {"group": "kueue.x-k8s.io", "names": names, "scope": "Namespaced", "versions": [version]},
        }
    )
    wait_for(lambda: _served(plane), describe="Workloads to be served")


def _served(plane: ControlPlane) -> bool:
    try:
        plane.kube.list("Workload", "default")
    except RuntimeError:
        return False
    return True


def _workload(job: Manifest, *conditions: dict[str, Any], active: bool = True) -> Manifest:
    metadata = job["metadata"]
    return {
        "apiVersion": "kueue.x-k8s.io/v1beta1",
        "kind": "Workload",
        "metadata": {
            "name": "job-of-a-stage",
            "namespace": metadata["namespace"],
            "labels": {"kueue.x-k8s.io/job-uid": metadata["uid"]},
        },
        "spec": {"active": active},
        "status": {"conditions": list(conditions)},
    }


def test_why_a_queued_run_waits(kueue: None, operator: Operator, world: World) -> None:
    succeeds(world.pods, Stage.PREPARE)
    world.create(queue={"name": "gpus"})
    world.running("plates-train-1")
    pending = {"type": "QuotaReserved", "status": "False", "reason": "Pending", "message": NO_QUOTA}
    world.kube.create(_workload(world.job("plates-train-1"), pending))
    world.kube.patch("Job", "plates-train-1", world.namespace, {"spec": {"suspend": True}})
    said = world.wait(lambda status: any(NO_QUOTA in one.get("message", "") for one in status["conditions"]) and status)
    assert said["phase"] == "Queued"
    evicted = {"type": "Evicted", "status": "True", "message": "Preempted to accommodate a workload"}
    patch = {"status": {"conditions": [pending, evicted]}, "spec": {"active": False}}
    world.kube.patch("Workload", "job-of-a-stage", world.namespace, patch)
    world.wait(
        lambda status: "was deactivated" in (condition({"status": status}, "Admitted", "False") or {})["message"]
    )
    message = world.condition("Admitted", "False")["message"]
    assert "Preempted to accommodate a workload" in message
    assert NO_QUOTA in message
    world.kube.patch("Job", "plates-train-1", world.namespace, {"spec": {"suspend": False}})
    world.wait_phase("Training")
    assert world.condition("Admitted")


def test_a_queue_of_another_cluster_is_told_to_be_unsupported(operator: Operator, world: World) -> None:
    """Kueue sets `managedBy` in its webhook when a queue sends Jobs to other clusters."""
    operator.process.kill()
    owner = world.create()
    labels = {"ocrfinetune.dev/run": "plates", "ocrfinetune.dev/stage": "prepare", "ocrfinetune.dev/attempt": "1"}
    reference = {"apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": "plates", "controller": True,
                 "uid": owner["metadata"]["uid"]}  # fmt: skip
    container = {"name": "trainer", "image": "none"}
    world.kube.create(
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": "plates-prepare-1", "namespace": world.namespace, "labels": labels,
                         "ownerReferences": [reference]},
            "spec": {"suspend": True, "managedBy": "kueue.x-k8s.io/multikueue",
                     "template": {"spec": {"restartPolicy": "Never", "containers": [container]}}},
        }
    )  # fmt: skip
    operator.process.start()
    said = world.wait_event("Unsupported")
    assert "kueue.x-k8s.io/multikueue" in said
    assert world.condition("Admitted", "False")["reason"] == "Unsupported"
