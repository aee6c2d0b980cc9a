"""Fixtures of a real control plane; how to use them is said in ``kube_testing``."""

from __future__ import annotations

import os
import re
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from kube_testing.control_plane import ControlPlane
from operator_fixtures import alone, installed, operator, shared_operator, world  # noqa: F401

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from kube_testing.fake_nodes import FakeNodes, PodScript

_NODES = 4


@pytest.fixture(scope="session", autouse=True)
def _without_proxy() -> Iterator[None]:
    """What is on this machine is asked without a proxy, which builds of the programs may need."""
    with pytest.MonkeyPatch.context() as environment:
        for name in ("NO_PROXY", "no_proxy"):
            given = [os.environ[name]] if os.environ.get(name) else []
            environment.setenv(name, ",".join([*given, "localhost", "127.0.0.0/8"]))
        yield


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A started control plane with four ready nodes, one a test session."""
    plane = ControlPlane(tmp_path_factory.mktemp("plane"))
    try:
        plane.start()
        for number in range(_NODES):
            plane.nodes.add(f"node-{number}")
        yield plane
    finally:
        plane.stop()


@pytest.fixture(scope="session")
def nodes(plane: ControlPlane) -> FakeNodes:
    """The nodes of the control plane."""
    return plane.nodes


@pytest.fixture
def namespace(plane: ControlPlane, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace of the test's own; its scripts are forgotten and its objects deleted at the end."""
    words = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")
    name = f"{words[:40].rstrip('-')}-{secrets.token_hex(3)}"
    plane.create_namespace(name)
    yield name
    plane.pods(name).clear()
    plane.kube.delete("Namespace", name)


@pytest.fixture
def pods(plane: ControlPlane, namespace: str) -> PodScript:
    """What becomes of the pods of the test's namespace."""
    return plane.pods(namespace)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Adds the end of every log to the report of a failed test."""
    report = yield
    plane = getattr(item, "funcargs", {}).get("plane")
    if report.failed and isinstance(plane, ControlPlane):
        for name, tail in plane.tails(int(os.environ.get("LOG_LINES", "25"))).items():
            report.sections.append((f"the end of {name}.log", tail))
    return report
