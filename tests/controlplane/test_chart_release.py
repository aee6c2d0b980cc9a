"""The life of a release by Helm, on a real API server: what it never takes away are the runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from helm_python import Config, HelmError
from kube_testing.client import Manifest, condition
from kube_testing.control_plane import ControlPlane
from kube_testing.processes import wait_for
from operator_testing import ROOT, manifest

from next_chart import NEW_FIELD, VERSION, next_chart

CHART = ROOT / "charts" / "ocr-finetune-operator"
_CRD = "ocrfinetunes.ocrfinetune.dev"
_DEPLOYMENT = "ocrft-ocr-finetune-operator"


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane where nothing is installed."""
    plane = ControlPlane(tmp_path_factory.mktemp("bare"), fake_nodes=False)
    try:
        plane.start()
        for namespace in ("first", "second", "team"):
            plane.create_namespace(namespace)
        yield plane
    finally:
        plane.stop()


def _helm(plane: ControlPlane, namespace: str) -> Config:
    return Config(kubeconfig_path=str(plane.kubeconfig("admin")), namespace=namespace)


def _run(plane: ControlPlane) -> Manifest:
    found = plane.kube.get("OCRFineTune", "plates", "team")
    assert found is not None
    return found


def _schema(plane: ControlPlane) -> dict[str, Any]:
    crd = plane.kube.wait("CustomResourceDefinition", _CRD, None, lambda crd: condition(crd, "Established"))
    fields: dict[str, Any] = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    return fields


def _check_user_roles(plane: ControlPlane) -> None:
    """What Kubernetes' own roles for users allow, which the chart's rules are aggregated to."""
    expected = {"admin": {"get", "create"}, "edit": {"get", "create"}, "view": {"get"}}
    users = {
        role: plane.service_account(name=role, namespace="team", cluster_role=role, only_namespace=True)
        for role in expected
    }

    def allowed(role: str, verb: str, *more: str) -> bool:
        answer = plane.kubectl("auth", "can-i", verb, *more, "-n", "team", kubeconfig=users[role], check=False)
        return answer.stdout.strip() == "yes"

    def verbs(role: str) -> set[str]:
        return {verb for verb in ("get", "create") if allowed(role, verb, "ocrfinetunes")}

    # The chart's rules reach these roles one after the other.
    for role, rights in expected.items():
        wait_for(lambda role=role, rights=rights: verbs(role) >= rights, describe=f"the rights of {role}")
    for role, rights in expected.items():
        assert verbs(role) == rights
        assert not allowed(role, "patch", "ocrfinetunes", "--subresource=status")


def test_a_release_is_upgraded_uninstalled_and_installed_again_and_the_runs_stay(
    bare: ControlPlane, tmp_path: Path
) -> None:
    with _helm(bare, "first") as helm:
        helm.install(CHART, "ocrft", {}, namespace="first")
        assert NEW_FIELD not in _schema(bare)
        # A new resource is served a moment after its definition is established.
        wait_for(lambda: bare.kube.would_create(manifest("team")) == requests.codes.created, describe="the resource")
        before = bare.kube.create(manifest("team"))
        _check_user_roles(bare)

        helm.upgrade(next_chart(CHART, tmp_path), "ocrft", {}, namespace="first")
        assert NEW_FIELD in _schema(bare)
        after = _run(bare)
        assert (after["metadata"]["uid"], after["spec"]) == (before["metadata"]["uid"], before["spec"])
        deployment = bare.kube.get("Deployment", _DEPLOYMENT, "first")
        assert deployment is not None
        assert deployment["metadata"]["labels"]["helm.sh/chart"].endswith(VERSION)

        helm.uninstall("ocrft")
        assert bare.kube.get("Deployment", _DEPLOYMENT, "first") is None
        assert bare.kube.get("ClusterRole", _DEPLOYMENT) is None
        assert _run(bare)["metadata"]["uid"] == before["metadata"]["uid"]

        helm.install(CHART, "ocrft", {}, namespace="first")
        assert _run(bare)["metadata"]["uid"] == before["metadata"]["uid"]

    with _helm(bare, "second") as helm:
        with pytest.raises(HelmError, match=rf'"{_CRD}" in namespace "" exists and cannot be imported'):
            helm.install(CHART, "other", {}, namespace="second")
        # For a namespace of its own, without the resource that the first one owns, it may be there.
        helm.install(CHART, "narrow", {"crds": {"enabled": False}, "watchNamespaces": ["team"]}, namespace="second")
        assert bare.kube.get("Deployment", "narrow-ocr-finetune-operator", "second") is not None
