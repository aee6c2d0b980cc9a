"""The operator as users install it: the chart, through Helm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kube_testing.processes import wait_for

from . import images
from .cluster import CHART, Cluster

if TYPE_CHECKING:
    from pathlib import Path

    from kube_testing.client import Manifest

RELEASE = "ocrft"
NAMESPACE = "ocr-system"
DEPLOYMENT = f"{RELEASE}-ocr-finetune-operator"


def _image(target: str) -> dict[str, str]:
    repository, _, tag = images.reference(target).rpartition(":")
    return {"repository": repository, "tag": tag}


# Quick enough for tests; everything else is what an installation has.
VALUES: dict[str, Any] = {
    "image": _image("operator"),
    "trainer": {"image": _image("trainer")},
    "settings": {"backoffBase": 1, "progressInterval": 2, "recheckInterval": 5},
    "leaderElection": {"leaseDuration": 8, "renewInterval": 2},
}


def install(cluster: Cluster, *, namespace: str, values: dict[str, Any]) -> None:
    """Installs the chart into a namespace under the restricted standard, and waits until the operator is ready."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    cluster.plane.create_namespace(namespace, labels=labels)
    with cluster.helm(namespace) as helm:
        helm.install(CHART, RELEASE, values, namespace=namespace)
    wait_ready(cluster, namespace=namespace)


def upgrade(cluster: Cluster, *, namespace: str, values: dict[str, Any], chart: Path = CHART) -> None:
    """Upgrades the release and waits until the new replicas are ready."""
    with cluster.helm(namespace) as helm:
        helm.upgrade(chart, RELEASE, values, namespace=namespace)
    wait_ready(cluster, namespace=namespace)


def wait_ready(cluster: Cluster, *, namespace: str, timeout: float = 60.0) -> None:
    """Waits until all replicas are up to date and ready."""

    def ready(deployment: Manifest) -> bool:
        wanted = deployment["spec"]["replicas"]
        status = deployment.get("status", {})
        return (
            status.get("observedGeneration", 0) >= deployment["metadata"]["generation"]
            and status.get("updatedReplicas", 0) == status.get("readyReplicas", 0) == status.get("replicas") == wanted
        )

    cluster.kube.wait("Deployment", DEPLOYMENT, namespace, ready, timeout=timeout)


def pods(cluster: Cluster, *, namespace: str) -> list[Manifest]:
    """Returns the operator's running pods."""
    found = cluster.kube.list("Pod", namespace, labels="app.kubernetes.io/name=ocr-finetune-operator")
    return [pod for pod in found if pod["status"].get("phase") == "Running"]


def leader(cluster: Cluster, *, namespace: str) -> str:
    """Waits for a leader and returns its pod's name."""

    def holder() -> str:
        lease = cluster.kube.get("Lease", DEPLOYMENT, namespace)
        identity: str = ((lease or {}).get("spec") or {}).get("holderIdentity") or ""
        return next(
            (
                name
                for name in (pod["metadata"]["name"] for pod in pods(cluster, namespace=namespace))
                if identity.startswith(name)
            ),
            "",
        )

    return wait_for(holder, describe="a leader", timeout=40)
