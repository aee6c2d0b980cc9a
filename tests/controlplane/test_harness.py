"""The control plane of the tests does what it says: scripts reach the pods they mean, faults look like real ones."""

from __future__ import annotations

import http.server
import threading
from typing import TYPE_CHECKING

import pytest
import requests
from kube_testing.client import ApiError, Manifest, condition
from kube_testing.processes import DEADLINE, wait_for

if TYPE_CHECKING:
    from kube_testing.control_plane import ControlPlane
    from kube_testing.fake_nodes import PodScript


def _job(namespace: str, *, name: str = "train", pods: int = 2, gpus: int = 0) -> Manifest:
    limits = {"limits": {"nvidia.com/gpu": str(gpus)}} if gpus else {}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "completions": pods,
            "parallelism": pods,
            "completionMode": "Indexed",
            "backoffLimit": 0,
            "podReplacementPolicy": "Failed",
            "template": {
                "spec": {
                    "restartPolicy": "Never",
                    "containers": [{"name": "trainer", "image": "trainer:test", "resources": limits}],
                }
            },
        },
    }


def _pods(plane: ControlPlane, namespace: str, phase: str) -> list[Manifest]:
    return [pod for pod in plane.kube.list("Pod", namespace) if pod["status"].get("phase") == phase]


def _running(plane: ControlPlane, namespace: str, count: int = 2) -> list[Manifest]:
    return wait_for(
        lambda: (pods := _pods(plane, namespace, "Running")) and len(pods) == count and pods,
        describe=f"{count} running pods",
    )


def test_pods_of_a_job_run_and_end_as_scripted(plane: ControlPlane, namespace: str, pods: PodScript) -> None:
    plane.kube.create(_job(namespace, gpus=8))
    running = _running(plane, namespace)
    assert {pod["spec"]["nodeName"] for pod in running} <= {f"node-{n}" for n in range(4)}

    pods.succeeds(message='{"accuracy": "{{0.9}}"}', job="train", index=0)
    pods.exits(code=65, message='no "labels"', job="train", index=1)

    plane.kube.wait("Job", "train", namespace, lambda job: condition(job, "Failed"))
    ended = {
        pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"]: pod["status"]["containerStatuses"][0]
        for pod in plane.kube.list("Pod", namespace)
    }
    assert ended["0"]["state"]["terminated"]["message"] == '{"accuracy": "{{0.9}}"}'
    assert ended["1"]["state"]["terminated"]["exitCode"] == 65
    assert ended["1"]["state"]["terminated"]["message"] == 'no "labels"'


def test_a_script_of_one_namespace_leaves_the_others_alone(
    plane: ControlPlane, namespace: str, pods: PodScript, request: pytest.FixtureRequest
) -> None:
    other = f"{namespace[:50]}-other"
    plane.create_namespace(other)
    request.addfinalizer(lambda: plane.kube.delete("Namespace", other))
    pods.succeeds()
    for name in (namespace, other):
        plane.kube.create(_job(name, pods=1))
    plane.kube.wait("Job", "train", namespace, lambda job: condition(job, "Complete"))
    assert len(_running(plane, other, 1)) == 1


def test_an_image_that_cannot_be_pulled(plane: ControlPlane, namespace: str, pods: PodScript) -> None:
    pods.image_cannot_be_pulled()
    plane.kube.create(_job(namespace, pods=1))
    waiting = wait_for(
        lambda: [
            status["state"]["waiting"]
            for pod in plane.kube.list("Pod", namespace)
            for status in pod["status"].get("containerStatuses", [])
        ],
        describe="a container that waits",
    )
    assert waiting[0]["reason"] == "ImagePullBackOff"
    assert '"trainer:test"' in waiting[0]["message"]


def test_an_evicted_pod_is_a_disruption_and_ends_with_its_own_code(
    plane: ControlPlane, namespace: str, pods: PodScript
) -> None:
    pods.ends_when_deleted(code=75)
    # A finalizer of the test's own: else the pod is gone before it can be looked at.
    job = _job(namespace, pods=1)
    job["spec"]["template"]["metadata"] = {"finalizers": ["test.ocrfinetune.dev/look"]}
    plane.kube.create(job)
    (pod,) = _running(plane, namespace, 1)
    name = pod["metadata"]["name"]
    plane.kube.evict(name, namespace)
    ended = plane.kube.wait("Pod", name, namespace, lambda pod: pod["status"]["phase"] == "Failed")
    disruption = condition(ended, "DisruptionTarget")
    assert disruption is not None
    assert disruption["reason"] == "EvictionByEvictionAPI"
    assert ended["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 75
    plane.kube.patch("Pod", name, namespace, {"metadata": {"finalizers": None}})
    plane.kube.wait_gone("Pod", name, namespace)


def test_pods_of_a_failed_node_hang_until_it_comes_back(
    plane: ControlPlane, namespace: str, request: pytest.FixtureRequest
) -> None:
    node = f"{namespace[:40]}-node"
    plane.nodes.add(node, labels={"only": namespace})
    request.addfinalizer(lambda: plane.nodes.remove(node))
    job = _job(namespace, pods=1)
    job["spec"]["template"]["spec"]["nodeSelector"] = {"only": namespace}
    plane.kube.create(job)
    (pod,) = _running(plane, namespace, 1)
    name = pod["metadata"]["name"]

    plane.nodes.fail(node)
    deleted = plane.kube.wait("Pod", name, namespace, lambda pod: "deletionTimestamp" in pod["metadata"])
    assert deleted["status"]["phase"] == "Running"
    disruption = condition(deleted, "DisruptionTarget")
    assert disruption is not None
    assert disruption["reason"] == "DeletionByTaintManager"

    plane.nodes.recover(node)
    plane.kube.wait_gone("Pod", name, namespace)


def test_a_test_can_serve_at_a_pods_address_and_set_its_log(
    plane: ControlPlane, namespace: str, pods: PodScript
) -> None:
    plane.kube.create(_job(namespace, pods=1))
    (pod,) = _running(plane, namespace, 1)

    class Progress(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"step 7")

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer((pod["status"]["podIP"], 0), Progress) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://{pod['status']['podIP']}:{server.server_port}"
        assert requests.get(address, timeout=DEADLINE).content == b"step 7"
        server.shutdown()

    pods.log("first\nlast words")
    name = pod["metadata"]["name"]

    def log() -> str:
        try:
            return plane.kube.logs(name, namespace, tailLines=1)
        except ApiError:
            return ""

    assert wait_for(log, describe="the log") == "last words\n"


def test_a_user_has_only_the_rights_given(plane: ControlPlane, namespace: str) -> None:
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]
    kubeconfig = plane.service_account(name="reader", namespace=namespace, rules=rules, only_namespace=True)
    assert "No resources found" in plane.kubectl("get", "pods", "-n", namespace, kubeconfig=kubeconfig).stderr
    refused = plane.kubectl("get", "pods", "-n", "default", kubeconfig=kubeconfig, check=False)
    assert "cannot list resource" in refused.stderr

    def seen() -> list[tuple[str, int]]:
        found = plane.requests(f"system:serviceaccount:{namespace}:reader")
        pods = [one for one in found if one.get("objectRef", {}).get("resource") == "pods"]
        return [(one["verb"], one["responseStatus"]["code"]) for one in pods]

    # The audit log is written after the answer.
    wait_for(lambda: len(seen()) == 2, describe="both requests in the audit log")
    assert seen() == [("list", 200), ("list", 403)]


def test_objects_outlive_a_restart_of_api_server_and_etcd(plane: ControlPlane, namespace: str) -> None:
    plane.kube.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kept", "namespace": namespace}})
    plane.restart_api_server()
    assert plane.kube.get("ConfigMap", "kept", namespace)
    plane.restart_etcd()
    assert plane.kube.get("ConfigMap", "kept", namespace)
