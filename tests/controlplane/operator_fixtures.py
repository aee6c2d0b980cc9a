"""Fixtures of tests of the operator; conftest.py takes them in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from operator_testing import Operator, World, install, make_claim

if TYPE_CHECKING:
    from kube_testing.control_plane import ControlPlane
    from kube_testing.fake_nodes import PodScript


@pytest.fixture(scope="session")
def installed(plane: ControlPlane) -> Path:
    """The kubeconfig of the operator's account, once the CRD and the rights are there."""
    return install(plane)


@pytest.fixture(scope="session")
def shared_operator(plane: ControlPlane, installed: Path) -> Iterator[Operator]:
    """One operator for all tests, for the whole cluster."""
    operator = Operator(plane, kubeconfig=installed).wait_ready()
    yield operator
    log = operator.process.log.read_text()
    # The picture in the documents shows all transitions there are; and no look at a run may end in an exception.
    for words in ("unexpected: from", "a look at the run failed", "refuses what should be right"):
        assert words not in log, f"{words}: {[line for line in log.splitlines() if words in line][:3]}"


@pytest.fixture
def operator(shared_operator: Operator) -> Operator:
    """The operator, for the whole cluster and running; a test may kill it."""
    if not shared_operator.process.running:
        shared_operator.process.start()
        shared_operator.wait_ready()
    return shared_operator


@pytest.fixture
def alone(shared_operator: Operator) -> Iterator[None]:
    """No other operator works."""
    shared_operator.process.kill()
    yield
    shared_operator.process.start()
    shared_operator.wait_ready()


@pytest.fixture
def world(plane: ControlPlane, namespace: str, pods: PodScript, installed: Path) -> World:
    """A namespace with a claim for workspaces."""
    make_claim(plane, namespace)
    return World(plane, namespace, pods)
