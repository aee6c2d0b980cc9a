"""What this project writes for Kueue and for Prometheus' operator is accepted under their own definitions."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from kube_testing.client import condition
from kube_testing.control_plane import ControlPlane
from kube_testing.definitions import definitions
from kube_testing.processes import wait_for
from operator_testing import ROOT

sys.path.insert(0, str(Path(__file__).parents[1] / "chart"))

from charts import NAMESPACE, render

_QUEUES = ROOT / "examples" / "cluster" / "kueue.yaml"
_MONITORING = {
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "podMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}},
}


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane that knows the resources of Kueue and of Prometheus' operator."""
    plane = ControlPlane(tmp_path_factory.mktemp("others"), fake_nodes=False)
    try:
        plane.start()
        for definition in (
            *definitions("kueue", "resourceflavors", "clusterqueues", "localqueues"),
            *definitions("prometheus-operator", "servicemonitors", "podmonitors", "prometheusrules"),
        ):
            plane.kube.create(definition)
            plane.kube.wait(
                "CustomResourceDefinition",
                definition["metadata"]["name"],
                None,
                lambda crd: condition(crd, "Established"),
            )
            # kubectl finds a resource a moment after it is established.
            wait_for(
                lambda name=definition["metadata"]["name"]: plane.kubectl("get", name, check=False).returncode == 0,
                describe=f"{definition['metadata']['name']} to be known",
            )
        for namespace in ("team-a", NAMESPACE):
            plane.create_namespace(namespace)
        yield plane
    finally:
        plane.stop()


def test_the_queues_of_the_example_can_be_made(others: ControlPlane) -> None:
    made = others.kubectl("create", "--validate=strict", "-f", str(_QUEUES)).stdout
    assert made.count("created") == 5


def test_what_the_chart_makes_for_prometheus_can_be_made(others: ControlPlane) -> None:
    objects = [one for one in render({"monitoring": _MONITORING}) if "monitoring.coreos.com" in one["apiVersion"]]
    assert {one["kind"] for one in objects} == {"ServiceMonitor", "PodMonitor", "PrometheusRule"}
    text = yaml.safe_dump_all(objects)
    made = others.kubectl("create", "--validate=strict", "-n", NAMESPACE, "-f", "-", manifest=text).stdout
    assert made.count("created") == len(objects)


def test_a_field_that_prometheus_does_not_know_would_be_found(others: ControlPlane) -> None:
    (monitor,) = [one for one in render({"monitoring": _MONITORING}) if one["kind"] == "ServiceMonitor"]
    monitor["metadata"]["name"] = "wrong"
    monitor["spec"]["endpoints"][0]["intervall"] = "30s"
    done = others.kubectl(
        "create", "--validate=strict", "-n", NAMESPACE, "-f", "-", manifest=yaml.safe_dump(monitor), check=False
    )
    assert 'unknown field "spec.endpoints[0].intervall"' in done.stderr
