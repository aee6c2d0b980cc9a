"""What an operator finds in a cluster that is not as it should be: it says what is missing, and stays alive."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from kube_testing.control_plane import ControlPlane
from kube_testing.processes import wait_for
from operator_proxy import proxied
from operator_testing import (
    OPERATOR_NAMESPACE,
    PATIENCE,
    ROOT,
    Operator,
    World,
    make_claim,
    succeeds,
)

from ocr_finetune_api.crd import FILE_NAME
from ocr_finetune_api.plan import STAGES
from ocr_finetune_operator import rbac

if TYPE_CHECKING:
    from kube_testing.fake_nodes import PodScript


@pytest.fixture
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane where nothing is installed."""
    plane = ControlPlane(tmp_path_factory.mktemp("bare"), fake_nodes=False)
    try:
        yield plane.start()
    finally:
        plane.stop()


def _says(operator: Operator, words: str) -> None:
    wait_for(
        lambda: words in operator.process.said(),
        describe=lambda: f"{words!r} in the log:\n{operator.process.tail()}",
        timeout=PATIENCE,
    )


def test_a_cluster_without_the_resource_is_waited_for(bare: ControlPlane) -> None:
    bare.create_namespace(OPERATOR_NAMESPACE)
    kubeconfig = bare.service_account(name="operator", namespace=OPERATOR_NAMESPACE, rules=rbac.rules())
    operator = Operator(bare, kubeconfig=kubeconfig)
    _says(operator, "has no resource ocrfinetunes.ocrfinetune.dev/v1alpha1: install the chart with crds.enabled=true")
    assert operator.get("/readyz") is None
    assert operator.get("/healthz") == "ok\n"
    bare.kube.create(yaml.safe_load((ROOT / "crds" / FILE_NAME).read_text()))
    operator.wait_ready()


def test_a_cluster_that_is_too_old_is_named(plane: ControlPlane, installed: Path, namespace: str) -> None:
    with proxied(plane, installed, namespace) as (proxy, operator):
        proxy.answers["/version"] = {"major": "1", "minor": "27+"}
        # The first look may have come before the answer was laid in.
        operator.process.kill()
        operator.process.start()
        _says(operator, "Kubernetes 1.27 is too old: 1.31 or newer is needed")
        assert operator.get("/readyz") is None
        del proxy.answers["/version"]
        operator.wait_ready()


def test_every_missing_right_is_named_at_once(plane: ControlPlane, namespace: str, alone: None) -> None:
    poor = [
        rule | {"verbs": [verb for verb in rule["verbs"] if verb != "create"]}
        for rule in rbac.rules()
        if rule["resources"] != ["secrets"]
    ]
    kubeconfig = plane.service_account(name="poor", namespace=namespace, rules=poor)
    operator = Operator(plane, kubeconfig=kubeconfig, name="poor", namespaces=namespace)
    try:
        operator.wait_ready()
        for words in (
            f"may not create jobs.batch in namespace {namespace}; without it nobody runs each attempt",
            f"may not create configmaps in namespace {namespace}",
            f"may not get secrets in namespace {namespace}",
        ):
            _says(operator, words)
            assert words in (operator.get("/readyz") or "")
    finally:
        plane.forget(operator.process)


def test_a_namespace_that_may_not_be_watched_does_not_stop_the_others(
    plane: ControlPlane, world: World, alone: None
) -> None:
    other = f"{world.namespace}-2"
    plane.create_namespace(other)
    make_claim(plane, other)
    kubeconfig = plane.service_account(
        name="half", namespace=world.namespace, rules=rbac.rules(cluster=False), only_namespace=True
    )
    hidden = World(plane, other, plane.pods(other))
    for one in (world, hidden):
        succeeds(one.pods)
    operator = Operator(
        plane, kubeconfig=kubeconfig, name="half", namespaces=f"{world.namespace},{other}", check_nodes="false"
    )
    try:
        operator.wait_ready()
        _says(operator, f"may not watch ocrfinetunes.ocrfinetune.dev in namespace {other}")
        hidden.create()
        world.create()
        world.wait_phase("Succeeded")
        assert "status" not in (plane.kube.get("OCRFineTune", "plates", other) or {})
        # Once it is given the right, it begins anew, as a container does.
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": f"{world.namespace}-half"}
        plane.kube.create(
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "RoleBinding",
                "metadata": {"name": "half", "namespace": other},
                "roleRef": role,
                "subjects": [{"kind": "ServiceAccount", "name": "half", "namespace": world.namespace}],
            }
        )
        wait_for(lambda: not operator.process.running, describe="the operator to begin anew", timeout=PATIENCE)
        operator.process.start()
        hidden.wait_phase("Succeeded")
    finally:
        plane.forget(operator.process)
        plane.kube.delete("Namespace", other)


def test_two_installations_do_nothing_twice(
    plane: ControlPlane, installed: Path, world: World, pods: PodScript, alone: None
) -> None:
    both = [
        # A leader that this machine keeps from renewing for long ends itself; how that goes is another test's.
        Operator(plane, kubeconfig=installed, name=name, leader_election="true", lease_name=name, lease_duration="300")
        for name in ("installation-a", "installation-b")
    ]
    try:
        for operator in both:
            operator.wait_ready()
            wait_for(
                lambda operator=operator: operator.metric("ocrfinetune_leader ") == 1,
                describe="each to lead its own installation",
                timeout=PATIENCE,
            )
        succeeds(pods, after=0.5)
        world.create()
        status = world.wait_phase("Succeeded")
        assert world.jobs() == [f"plates-{stage.value}-1" for stage in STAGES]
        assert [one["stage"] for one in status["attempts"]] == [stage.value for stage in STAGES]
        assert (status["restarts"], status["disruptions"]) == (0, 0)
        assert all(operator.process.running for operator in both)
    finally:
        for operator in both:
            plane.forget(operator.process)
