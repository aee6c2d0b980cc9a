"""The cluster itself is a real one: pods on two nodes find each other by name, a lost node is seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster_testing import images, machine
from kube_testing.client import Manifest, condition

if TYPE_CHECKING:
    from cluster_testing.cluster import Cluster
    from cluster_testing.volumes import SharedVolumes

_TALK = """
import pathlib, socket, sys, time
rank = int(sys.argv[1])
if rank == 0:
    with socket.create_server(("", 5000)) as server:
        server.settimeout(60)
        peer, _ = server.accept()
        print("heard", peer.recv(100).decode(), "and read", pathlib.Path("/shared/word").read_text())
else:
    pathlib.Path("/shared/word").write_text("through the volume")
    deadline = time.monotonic() + 60
    while True:
        try:
            with socket.create_connection(("talk-0.talk", 5000), timeout=2) as peer:
                peer.sendall(b"through the network")
            break
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
"""


def _restricted(container: Manifest) -> Manifest:
    return container | {
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        }
    }


def test_pods_on_two_nodes_reach_each_other_by_name_and_share_a_volume(
    cluster: Cluster, namespace: str, volumes: SharedVolumes
) -> None:
    volumes.claim("shared", namespace)
    cluster.kube.create(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "talk", "namespace": namespace},
            "spec": {
                "clusterIP": "None",
                "selector": {"batch.kubernetes.io/job-name": "talk"},
                "publishNotReadyAddresses": True,
            },
        }
    )
    container = _restricted(
        {
            "name": "talk",
            "image": images.reference("operator"),
            "args": ["python", "-c", _TALK, "$(RANK)"],
            "env": [
                {
                    "name": "RANK",
                    "valueFrom": {
                        "fieldRef": {"fieldPath": "metadata.labels['batch.kubernetes.io/job-completion-index']"}
                    },
                }
            ],
            "volumeMounts": [{"name": "shared", "mountPath": "/shared"}],
        }
    )
    cluster.kube.create(
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": "talk", "namespace": namespace},
            "spec": {
                "completions": 2,
                "parallelism": 2,
                "completionMode": "Indexed",
                "backoffLimit": 0,
                "template": {
                    "spec": {
                        "restartPolicy": "Never",
                        "subdomain": "talk",
                        "automountServiceAccountToken": False,
                        "containers": [container],
                        "volumes": [{"name": "shared", "persistentVolumeClaim": {"claimName": "shared"}}],
                        "topologySpreadConstraints": [
                            {
                                "maxSkew": 1,
                                "topologyKey": "kubernetes.io/hostname",
                                "whenUnsatisfiable": "DoNotSchedule",
                                "labelSelector": {"matchLabels": {"batch.kubernetes.io/job-name": "talk"}},
                            }
                        ],
                    }
                },
            },
        }
    )
    cluster.kube.wait("Job", "talk", namespace, lambda job: condition(job, "Complete"), timeout=90)
    pods = cluster.kube.list("Pod", namespace, labels="batch.kubernetes.io/job-completion-index=0")
    log = cluster.kube.logs(pods[0]["metadata"]["name"], namespace)
    assert log == "heard through the network and read through the volume\n"


def test_a_node_that_falls_silent_is_not_ready_until_it_is_back(cluster: Cluster) -> None:
    node = cluster.nodes["node-1"]
    node.fail()
    cluster.kube.wait("Node", "node-1", None, lambda node: condition(node, "Ready", "Unknown"), timeout=60)
    node.recover()


def test_processes_of_a_node_are_known_by_their_ids(cluster: Cluster) -> None:
    inside = cluster.nodes["node-0"].processes()
    assert inside
    assert set(machine.processes_in(cluster.nodes["node-0"].namespace)) <= set(inside)
