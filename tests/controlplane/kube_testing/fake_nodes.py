"""Nodes that exist only in the API, and scripts that say what becomes of their pods.

kwok plays the kubelet by Stage resources. The stages below are the ordinary life of a pod (it runs, and ends when it
is deleted); a :class:`PodScript` adds stages for one namespace that take precedence over them.
"""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any

import requests

from .client import ApiError
from .processes import wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from .client import Kube, Manifest

NODE_LABEL = "kwok.x-k8s.io/node"
GPU = "nvidia.com/gpu"
_CANARY = "kube-testing-canary"
_JOB_NAME = "batch.kubernetes.io/job-name"
_JOB_INDEX = "batch.kubernetes.io/job-completion-index"
_TERMINATED = 143
_Match = dict[str, Any]


def _exists(path: str) -> _Match:
    return {"key": path, "operator": "Exists"}


def _absent(path: str) -> _Match:
    return {"key": path, "operator": "DoesNotExist"}


def _among(path: str, *values: str) -> _Match:
    return {"key": path, "operator": "In", "values": list(values)}


_WAITS_FOR_START = (
    _absent(".metadata.deletionTimestamp"),
    _absent(".status.podIP"),
    _among(".status.phase", "Pending"),
)
_RUNS = (_absent(".metadata.deletionTimestamp"), _among(".status.phase", "Running"))
_IS_DELETED = (_exists(".metadata.deletionTimestamp"), _among(".status.phase", "Running", "Pending"))
_IS_OVER = (_exists(".metadata.deletionTimestamp"), _among(".status.phase", "Failed", "Succeeded"))

_RUNNING = """
{{ $now := Now }}
{{ $meta := .metadata }}
{{ $ip := PodIPWith .spec.nodeName ( or .spec.hostNetwork false ) ( or $meta.uid "" ) $meta.name $meta.namespace }}
phase: Running
startTime: {{ $now | Quote }}
hostIP: {{ NodeIPWith .spec.nodeName | Quote }}
podIP: {{ POD_IP | Quote }}
podIPs: [{ip: {{ POD_IP | Quote }}}]
conditions:
{{ range $type := list "PodReadyToStartContainers" "Initialized" "Ready" "ContainersReady" }}
- {type: {{ $type }}, status: "True", lastTransitionTime: {{ $now | Quote }}}
{{ end }}
containerStatuses:
{{ range .spec.containers }}
- name: {{ .name | Quote }}
  image: {{ .image | Quote }}
  imageID: {{ .image | Quote }}
  ready: true
  started: true
  restartCount: 0
  state: {running: {startedAt: {{ $now | Quote }}}}
{{ end }}
initContainerStatuses:
{{ range .spec.initContainers }}
- name: {{ .name | Quote }}
  image: {{ .image | Quote }}
  imageID: {{ .image | Quote }}
  ready: true
  restartCount: 0
  state: {terminated: {exitCode: 0, reason: Completed, startedAt: {{ $now | Quote }}, finishedAt: {{ $now | Quote }}}}
{{ end }}
"""

_ENDED = """
{{ $now := Now }}
{{ $started := or .status.startTime $now }}
phase: PHASE
startTime: {{ $started | Quote }}
conditions:
{{ range $type := list "Ready" "ContainersReady" }}
- {type: {{ $type }}, status: "False", reason: PodFINISHED, lastTransitionTime: {{ $now | Quote }}}
{{ end }}
containerStatuses:
{{ range .spec.containers }}
- name: {{ .name | Quote }}
  image: {{ .image | Quote }}
  imageID: {{ .image | Quote }}
  ready: false
  started: false
  restartCount: 0
  state:
    terminated:
      exitCode: CODE
      reason: REASON
      message: MESSAGE
      startedAt: {{ $started | Quote }}
      finishedAt: {{ $now | Quote }}
{{ end }}
"""

_IMAGE_PULL = """
phase: Pending
containerStatuses:
{{ range .spec.containers }}
- name: {{ .name | Quote }}
  image: {{ .image | Quote }}
  imageID: ""
  ready: false
  started: false
  restartCount: 0
  state: {waiting: {reason: REASON, message: {{ printf "Back-off pulling image %q" .image | Quote }}}}
{{ end }}
"""

_NODE = """
{{ $now := Now }}
{{ $ready := or .metadata.creationTimestamp $now }}
phase: Running
addresses:
- {type: InternalIP, address: {{ NodeIP | Quote }}}
- {type: Hostname, address: {{ .metadata.name | Quote }}}
daemonEndpoints: {kubeletEndpoint: {Port: {{ NodePort }}}}
nodeInfo:
  architecture: amd64
  operatingSystem: linux
  kubeletVersion: v1.35.4
  containerRuntimeVersion: kwok
  bootID: ""
  kernelVersion: kwok
  kubeProxyVersion: ""
  machineID: ""
  osImage: ""
  systemUUID: ""
conditions:
{{ range NodeConditions }}
- type: {{ .type | Quote }}
  status: {{ .status | Quote }}
  reason: {{ .reason | Quote }}
  message: {{ .message | Quote }}
  lastHeartbeatTime: {{ $now | Quote }}
  lastTransitionTime: {{ $now | Quote }}
{{ end }}
"""


def _stage(
    name: str,
    *,
    kind: str,
    matches: tuple[_Match, ...],
    template: str = "",
    delete: bool = False,
    after: float = 0.0,
    weight: int = 0,
    labels: dict[str, str] | None = None,
) -> Manifest:
    """Returns a Stage. kwok takes one with a weight before all without."""
    return {
        "apiVersion": "kwok.x-k8s.io/v1alpha1",
        "kind": "Stage",
        "metadata": {"name": name, "labels": labels or {}},
        "spec": {
            "resourceRef": {"apiGroup": "v1", "kind": kind},
            "selector": {"matchExpressions": list(matches)},
            "weight": weight,
            "delay": {"durationMilliseconds": round(after * 1000)},
            "next": {"delete": True} if delete else {"statusTemplate": template},
        },
    }


def _running(pod_ip: str = "") -> str:
    return _RUNNING.replace("POD_IP", json.dumps(pod_ip) if pod_ip else "$ip")


def _ended(*, code: int, reason: str, message: str) -> str:
    return (
        _ENDED.replace("PHASE", "Failed" if code else "Succeeded")
        .replace("FINISHED", "Failed" if code else "Completed")
        .replace("CODE", str(code))
        .replace("REASON", json.dumps(reason))
        # The template language must not see braces of the message.
        .replace("MESSAGE", "{{ " + json.dumps(message) + " | Quote }}")
    )


def ordinary_stages() -> list[Manifest]:
    """Returns the stages of every namespace: nodes get ready, pods run until they are deleted, then they go."""
    return [
        _stage(
            "node-ready",
            kind="Node",
            matches=(
                {
                    "key": '.status.conditions.[] | select( .type == "Ready" ) | .status',
                    "operator": "NotIn",
                    "values": ["True"],
                },
            ),
            template=_NODE,
        ),
        _stage("pod-starts", kind="Pod", matches=_WAITS_FOR_START, template=_running()),
        _stage(
            "pod-ends",
            kind="Pod",
            matches=_IS_DELETED,
            template=_ended(code=_TERMINATED, reason="Error", message=""),
        ),
        # Unlike kwok's own, this leaves finalizers alone: the Job controller counts a pod before it lets it go.
        _stage("pod-goes", kind="Pod", matches=_IS_OVER, delete=True),
    ]


def stage_crds() -> list[Manifest]:
    """Returns the definitions of the kwok resources that the harness uses."""
    return [
        {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": f"{plural}.kwok.x-k8s.io"},
            "spec": {
                "group": "kwok.x-k8s.io",
                "names": {"kind": kind, "listKind": f"{kind}List", "plural": plural, "singular": kind.lower()},
                "scope": "Cluster",
                "versions": [
                    {
                        "name": "v1alpha1",
                        "served": True,
                        "storage": True,
                        "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
                    }
                ],
            },
        }
        for kind, plural in (("Stage", "stages"), ("ClusterLogs", "clusterlogs"), ("ClusterExec", "clusterexecs"))
    ]


class FakeNodes:
    """The nodes of the control plane."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube

    def add(
        self,
        name: str,
        *,
        gpus: int = 8,
        cpu: str = "64",
        memory: str = "512Gi",
        labels: dict[str, str] | None = None,
        taints: list[dict[str, str]] | None = None,
    ) -> None:
        """Creates a node and waits until it is ready and schedulable."""
        capacity = {"cpu": cpu, "memory": memory, "pods": "1000", "ephemeral-storage": "1Ti", GPU: str(gpus)}
        self._kube.create(
            {
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {
                    "name": name,
                    "labels": {
                        NODE_LABEL: "fake",
                        "kubernetes.io/hostname": name,
                        "kubernetes.io/os": "linux",
                        "kubernetes.io/arch": "amd64",
                        **(labels or {}),
                    },
                },
                "spec": {"taints": taints or []},
                "status": {"capacity": capacity, "allocatable": capacity},
            }
        )
        self.wait_ready(name)

    def remove(self, name: str) -> None:
        """Deletes a node."""
        self._kube.delete("Node", name)
        self._kube.wait_gone("Node", name)

    def wait_ready(self, name: str) -> None:
        """Waits until pods may go to a node: it is ready, and no controller keeps them off any more."""

        def schedulable(node: Manifest) -> bool:
            taints = [taint["key"] for taint in node["spec"].get("taints") or []]
            return _ready(node) == "True" and not any(key.startswith("node.kubernetes.io/") for key in taints)

        self._kube.wait("Node", name, None, schedulable)

    def fail(self, name: str) -> None:
        """Makes a node's kubelet fall silent: the node is not ready, and its pods neither change nor go."""
        self._kube.patch("Node", name, None, {"metadata": {"labels": {NODE_LABEL: "silent"}}})
        now = {"status": "Unknown", "reason": "NodeStatusUnknown", "message": "Kubelet stopped posting node status."}
        conditions = self._kube.get("Node", name)["status"]["conditions"]  # type: ignore[index]
        self._kube.patch(
            "Node",
            name,
            None,
            {"status": {"conditions": [{**one, **now} if one["type"] == "Ready" else one for one in conditions]}},
            subresource="status",
        )
        self._kube.wait("Node", name, None, lambda node: "unreachable" in json.dumps(node["spec"].get("taints")))

    def recover(self, name: str) -> None:
        """Lets a failed node's kubelet go on."""
        self._kube.patch("Node", name, None, {"metadata": {"labels": {NODE_LABEL: "fake"}}})
        self.wait_ready(name)

    def cordon(self, name: str, *, on: bool = True) -> None:
        """Keeps new pods off a node, or lets them come again."""
        self._kube.patch("Node", name, None, {"spec": {"unschedulable": on}})


def _ready(node: Manifest) -> str:
    for one in node.get("status", {}).get("conditions", []):
        if one["type"] == "Ready":
            status: str = one["status"]
            return status
    return "Unknown"


class PodScript:
    """What becomes of the pods of one namespace.

    Every method takes which pods are meant: ``job`` (the Job's name), ``index`` (the rank: the completion index of an
    Indexed Job) and ``labels``. Two scripts of one kind must not mean the same pod. A script holds for pods that run
    already, too, and for all to come until :meth:`clear`. Each method returns when kwok has learnt of the script.
    """

    def __init__(self, kube: Kube, *, namespace: str, folder: Path) -> None:
        self._kube = kube
        self._namespace = namespace
        self._folder = folder
        self._numbers = itertools.count()

    def runs(
        self,
        *,
        pod_ip: str = "",
        after: float = 0.0,
        job: str = "",
        index: int | None = None,
        labels: dict[str, str] | None = None,
    ) -> None:
        """Pods get running ``after`` seconds, with an address of the test's choice (in 127.0.0.0/8)."""
        self._add(_WAITS_FOR_START, _running(pod_ip), after=after, job=job, index=index, labels=labels)

    def succeeds(
        self,
        *,
        after: float = 0.0,
        message: str = "",
        job: str = "",
        index: int | None = None,
        labels: dict[str, str] | None = None,
    ) -> None:
        """Running pods end well ``after`` seconds, with ``message`` as termination message."""
        self.exits(code=0, reason="Completed", after=after, message=message, job=job, index=index, labels=labels)

    def exits(
        self,
        *,
        code: int,
        after: float = 0.0,
        message: str = "",
        reason: str = "Error",
        job: str = "",
        index: int | None = None,
        labels: dict[str, str] | None = None,
    ) -> None:
        """Running pods end with an exit code ``after`` seconds; ``reason`` is the container's, such as OOMKilled."""
        self._add(
            _RUNS,
            _ended(code=code, reason=reason, message=message),
            after=after,
            job=job,
            index=index,
            labels=labels,
        )

    def image_cannot_be_pulled(
        self,
        *,
        reason: str = "ImagePullBackOff",
        job: str = "",
        index: int | None = None,
        labels: dict[str, str] | None = None,
    ) -> None:
        """Pods wait for their image for ever."""
        self._add(_WAITS_FOR_START, _IMAGE_PULL.replace("REASON", reason), job=job, index=index, labels=labels)

    def ends_when_deleted(
        self,
        *,
        code: int = 75,
        after: float = 0.0,
        message: str = "",
        job: str = "",
        index: int | None = None,
        labels: dict[str, str] | None = None,
    ) -> None:
        """Deleted pods end with a code of their own ``after`` seconds, as a trainer that saves a checkpoint does."""
        self._add(
            _IS_DELETED,
            _ended(code=code, reason="Error", message=message),
            after=after,
            job=job,
            index=index,
            labels=labels,
        )

    def log(self, text: str) -> None:
        """Sets the log of all pods of the namespace, as ``kubectl logs`` shows it; returns when kwok has learnt of it."""
        file = self._folder / f"{self._namespace}.log"
        stamp = "2026-01-01T00:00:00.000000000Z"
        file.write_text("".join(f"{stamp} stdout F {line}\n" for line in text.splitlines()))
        self._kube.apply(
            {
                "apiVersion": "kwok.x-k8s.io/v1alpha1",
                "kind": "ClusterLogs",
                "metadata": {"name": self._namespace},
                "spec": {
                    "selector": {"matchNamespaces": [self._namespace]},
                    "logs": [{"logsFile": str(file), "previousLogsFile": str(file)}],
                },
            }
        )
        (node, *_) = [one for one in self._kube.list("Node", labels=f"{NODE_LABEL}=fake") if _ready(one) == "True"]
        # kwok serves a log by the names alone: it doesn't ask whether there is such a pod.
        wait_for(
            lambda: self._kube.kubelet_has_log(node, "any", self._namespace, "any"), describe="kwok to know of the log"
        )

    def runs_commands(self, folder: Path) -> None:
        """Lets ``kubectl exec`` run its command on this machine, with ``folder`` as the working directory."""
        self._kube.apply(
            {
                "apiVersion": "kwok.x-k8s.io/v1alpha1",
                "kind": "ClusterExec",
                "metadata": {"name": self._namespace},
                "spec": {
                    "selector": {"matchNamespaces": [self._namespace]},
                    "execs": [{"local": {"workDir": str(folder)}}],
                },
            }
        )

    def clear(self) -> None:
        """Forgets all scripts: pods run for ever again, and end when they are deleted."""
        for stage in self._kube.list("Stage", labels=f"namespace={self._namespace}"):
            self._kube.delete("Stage", stage["metadata"]["name"])
        self._kube.delete("ClusterLogs", self._namespace)
        self._kube.delete("ClusterExec", self._namespace)

    def _add(
        self,
        matches: tuple[_Match, ...],
        template: str,
        *,
        after: float = 0.0,
        job: str,
        index: int | None,
        labels: dict[str, str] | None,
    ) -> None:
        wanted = {**(labels or {}), **({_JOB_NAME: job} if job else {})}
        if index is not None:
            wanted[_JOB_INDEX] = str(index)
        self._kube.create(
            _stage(
                f"{self._namespace}-{next(self._numbers)}",
                kind="Pod",
                matches=(
                    *matches,
                    _among(".metadata.namespace", self._namespace),
                    *(_among(f'.metadata.labels["{key}"]', value) for key, value in wanted.items()),
                ),
                template=template,
                after=after,
                weight=1,
                labels={"namespace": self._namespace},
            )
        )
        wait_until_stages_are_known(self._kube)
        # kwok looks at a pod when the pod changes: those that run already need a reason.
        for pod in self._kube.list("Pod", self._namespace):
            stamp = {"metadata": {"annotations": {"kube-testing/looked-at": str(next(self._numbers))}}}
            try:
                self._kube.patch("Pod", pod["metadata"]["name"], self._namespace, stamp)
            except ApiError as error:
                # It is gone in the meantime.
                if error.code != requests.codes.not_found:
                    raise


def wait_until_stages_are_known(kube: Kube) -> None:
    """Returns when kwok has read every Stage created so far.

    kwok says nowhere which stages it knows. It reads them through one watch, in order, so a last one that is seen to
    act on a node of its own proves all the earlier ones.
    """
    stage = kube.get("Stage", _CANARY)
    number = str(int(stage["metadata"]["annotations"]["number"]) + 1 if stage else 1)
    kube.apply(
        {
            **_stage(
                _CANARY,
                kind="Node",
                matches=(_exists(f'.metadata.annotations["look-{number}"]'),),
                template=f'conditions:\n- {{type: Canary, status: "True", reason: "Seen{number}", message: ""}}\n',
                weight=1,
            ),
            "metadata": {"name": _CANARY, "annotations": {"number": number}},
        }
    )
    if kube.get("Node", _CANARY) is None:
        kube.create(
            {
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {"name": _CANARY, "labels": {NODE_LABEL: "fake"}},
                "spec": {"unschedulable": True},
            }
        )
    looks = itertools.count()

    def seen() -> bool:
        annotations = {f"look-{number}": str(next(looks)), f"look-{int(number) - 1}": None}
        node = kube.patch("Node", _CANARY, None, {"metadata": {"annotations": annotations}})
        return any(one.get("reason") == f"Seen{number}" for one in node.get("status", {}).get("conditions", []))

    # After a pause of the API server kwok's watches wait for up to half a minute before they try again.
    wait_for(seen, describe="kwok to read the stages", interval=0.02)
