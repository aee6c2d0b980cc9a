"""A real Prometheus that scrapes what the chart's ServiceMonitor and PodMonitor select.

The Prometheus operator would turn those two objects into scrape configurations; here a few lines do, for the fields
that the chart uses. An unknown field is an error, so that nothing of the chart goes untested.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import requests
import yaml
from kube_testing.processes import free_ports, wait_for

from .machine import search_path

if TYPE_CHECKING:
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
        folder = cluster.folder / "prometheus"
        folder.mkdir()
        (port,) = free_ports(1, host=_GATEWAY)
        self.url = f"http://{_GATEWAY}:{port}"
        jobs = [job for monitor in monitors for job in _jobs(monitor, str(cluster.plane.kubeconfig("admin")))]
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


def _jobs(monitor: dict[str, Any], kubeconfig: str) -> list[dict[str, Any]]:
    spec = dict(monitor["spec"])
    service = monitor["kind"] == "ServiceMonitor"
    endpoints = spec.pop("endpoints" if service else "podMetricsEndpoints")
    labels = spec.pop("selector")["matchLabels"]
    namespaces = spec.pop("namespaceSelector", {})
    assert not spec, f"unknown fields: {spec}"
    discovery: dict[str, Any] = {"role": "endpoints" if service else "pod", "kubeconfig_file": kubeconfig}
    if not namespaces.get("any"):
        discovery["namespaces"] = {"names": namespaces.get("matchNames", [monitor["metadata"]["namespace"]])}
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
                "kubernetes_sd_configs": [discovery],
                "relabel_configs": keep + always + given_too,
            }
        )
        assert not endpoint, f"unknown fields: {endpoint}"
    return jobs


def _label(key: str) -> str:
    return "".join(character if character.isalnum() else "_" for character in key)
