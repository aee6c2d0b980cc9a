"""A real Prometheus that scrapes what the chart's ServiceMonitor and PodMonitor select.

The Prometheus operator would turn those two objects into scrape configurations; here a few lines do, for the fields
that the chart uses. An unknown field is an error, so that nothing of the chart goes untested. Debian's Prometheus comes
without discovery in Kubernetes, so a thread writes the targets, with the same labels, into a file.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests
import yaml
from kube_testing.processes import free_ports, wait_for

from .machine import search_path

if TYPE_CHECKING:
    from kube_testing.client import Kube, Manifest

    from .cluster import Cluster

_GATEWAY = "10.77.0.1"


class Prometheus:
    """A Prometheus beside the cluster, until the cluster ends.

    Args:
        cluster: What it scrapes.
        monitors: The chart's ServiceMonitor and PodMonitor.
        interval: Time between two scrapes, for all: tests have no time to wait.
    """

    def __init__(self, cluster: Cluster, monitors: list[dict[str, Any]], *, interval: str = "1s") -> None:
        folder = Path(tempfile.mkdtemp(prefix="prometheus-", dir=cluster.folder))
        (port,) = free_ports(1, host=_GATEWAY)
        self.url = f"http://{_GATEWAY}:{port}"
        jobs = [job for monitor in monitors for job in _jobs(monitor, folder)]
        _Targets(cluster.kube, folder).start()
        config = {"global": {"scrape_interval": interval, "scrape_timeout": interval}, "scrape_configs": jobs}
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
        program = shutil.which("prometheus", path=search_path())
        assert program is not None
        cluster.plane.spawn(
            "prometheus",
            [
                program,
                f"--config.file={folder / 'prometheus.yaml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={_GATEWAY}:{port}",
            ],
        )
        wait_for(self._ready, describe="Prometheus to be ready")

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Returns the result of an instant query."""
        return self._ask("query", {"query": expression})

    def over(self, expression: str, *, start: float, end: float) -> list[dict[str, Any]]:
        """Returns the result of a query over a time range, a point a second."""
        return self._ask("query_range", {"query": expression, "start": str(start), "end": str(end), "step": "1"})

    def _ask(self, what: str, params: dict[str, str]) -> list[dict[str, Any]]:
        answer = requests.get(f"{self.url}/api/v1/{what}", params=params, timeout=10).json()
        assert answer["status"] == "success", answer
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found

    def _ready(self) -> bool:
        try:
            return requests.get(f"{self.url}/-/ready", timeout=2).ok
        except requests.RequestException:
            return False


class _Targets(threading.Thread):
    """Writes what Prometheus' own discovery would find: ``service.json`` and ``pod.json``, anew every second."""

    def __init__(self, kube: Kube, folder: Path) -> None:
        super().__init__(name="targets", daemon=True)
        self._kube = kube
        self._folder = folder
        self._write({"service": [], "pod": []})

    def run(self) -> None:
        """Goes on until the tests end; an API server that is away for a moment leaves the last targets."""
        while not threading.Event().wait(1):
            try:
                pods = self._kube.list("Pod")
                self._write({"pod": _of_pods(pods), "service": _of_services(self._kube, pods)})
            except (RuntimeError, requests.RequestException):
                continue

    def _write(self, targets: dict[str, list[dict[str, Any]]]) -> None:
        for source, found in targets.items():
            aside = self._folder / f"{source}.part"
            aside.write_text(json.dumps(found))
            aside.rename(self._folder / f"{source}.json")


def _of_pods(pods: list[Manifest]) -> list[dict[str, Any]]:
    return [
        {
            "targets": [f"{pod['status']['podIP']}:{port['containerPort']}"],
            "labels": _pod_labels(pod) | {"__meta_kubernetes_pod_container_port_name": port.get("name", "")},
        }
        for pod in pods
        if pod["status"].get("phase") == "Running" and pod["status"].get("podIP")
        for container in pod["spec"]["containers"]
        for port in container.get("ports", [])
    ]


def _of_services(kube: Kube, pods: list[Manifest]) -> list[dict[str, Any]]:
    found = []
    by_name = {(pod["metadata"]["namespace"], pod["metadata"]["name"]): pod for pod in pods}
    services = {(one["metadata"]["namespace"], one["metadata"]["name"]): one for one in kube.list("Service")}
    for endpoints in kube.list("Endpoints"):
        key = (endpoints["metadata"]["namespace"], endpoints["metadata"]["name"])
        for subset in endpoints.get("subsets") or []:
            for address in subset.get("addresses") or []:
                pod = by_name.get((key[0], address.get("targetRef", {}).get("name", "")))
                if pod is None or key not in services:
                    continue
                named = services[key]["metadata"].get("labels") or {}
                labels = {f"__meta_kubernetes_service_label_{_label(name)}": value for name, value in named.items()}
                labels |= _pod_labels(pod)
                found += [
                    {
                        "targets": [f"{address['ip']}:{port['port']}"],
                        "labels": labels | {"__meta_kubernetes_endpoint_port_name": port.get("name", "")},
                    }
                    for port in subset["ports"]
                ]
    return found


def _pod_labels(pod: Manifest) -> dict[str, str]:
    labels = pod["metadata"].get("labels") or {}
    return {
        "__meta_kubernetes_namespace": pod["metadata"]["namespace"],
        "__meta_kubernetes_pod_name": pod["metadata"]["name"],
        "__meta_kubernetes_pod_node_name": pod["spec"].get("nodeName", ""),
    } | {f"__meta_kubernetes_pod_label_{_label(name)}": value for name, value in labels.items()}


def _jobs(monitor: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
    spec = dict(monitor["spec"])
    service = monitor["kind"] == "ServiceMonitor"
    endpoints = spec.pop("endpoints" if service else "podMetricsEndpoints")
    labels = spec.pop("selector")["matchLabels"]
    namespaces = spec.pop("namespaceSelector", {})
    assert not spec, f"unknown fields: {spec}"
    allowed = [] if namespaces.get("any") else namespaces.get("matchNames", [monitor["metadata"]["namespace"]])
    source = "service" if service else "pod"
    port = "__meta_kubernetes_endpoint_port_name" if service else "__meta_kubernetes_pod_container_port_name"
    jobs = []
    for number, given in enumerate(endpoints):
        endpoint = dict(given)
        keep = [
            {"action": "keep", "source_labels": [f"__meta_kubernetes_{source}_label_{_label(key)}"], "regex": value}
            for key, value in labels.items()
        ]
        keep.append({"action": "keep", "source_labels": [port], "regex": endpoint.pop("port")})
        if allowed:
            namespace = {"source_labels": ["__meta_kubernetes_namespace"], "regex": "|".join(allowed)}
            keep.append({"action": "keep", **namespace})
        always = [
            {"source_labels": [f"__meta_kubernetes_{what}"], "target_label": target}
            for what, target in (("namespace", "namespace"), ("pod_name", "pod"), ("pod_node_name", "node"))
        ]
        given_too = [
            {"source_labels": rule["sourceLabels"], "target_label": rule["targetLabel"]}
            for rule in endpoint.pop("relabelings", [])
        ]
        endpoint.pop("interval")
        jobs.append(
            {
                "job_name": f"{monitor['metadata']['name']}-{number}",
                "honor_labels": endpoint.pop("honorLabels", False),
                "file_sd_configs": [{"files": [str(folder / f"{source}.json")], "refresh_interval": "1s"}],
                "relabel_configs": keep + always + given_too,
            }
        )
        assert not endpoint, f"unknown fields: {endpoint}"
    return jobs


def _label(key: str) -> str:
    return "".join(character if character.isalnum() else "_" for character in key)
