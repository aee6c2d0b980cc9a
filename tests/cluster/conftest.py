"""Fixtures of a whole cluster; ``cluster_testing`` says how it is made. Run by ``make e2e``, not by ``make test``."""

from __future__ import annotations

import os
import re
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "controlplane"))
sys.path.insert(0, str(Path(__file__).parents[1] / "chart"))

from cluster_testing import machine
from cluster_testing.cluster import Cluster, running
from cluster_testing.release import NAMESPACE, VALUES, install, upgrade
from cluster_testing.runs import EXAMPLE, Run
from cluster_testing.volumes import SharedVolumes

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from kube_testing.client import Manifest

_FIGURES = pytest.StashKey[dict[str, str]]()

# `make test` has no time for these; `make e2e` says E2E=1, and then a machine that cannot run them is an error.
collect_ignore_glob = [] if os.environ.get("E2E") == "1" else ["test_*.py"]


def pytest_configure() -> None:
    """Lets a session that is told to end tidy up: what runs here does not go away with its parent."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, interrupt)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Gives the tests of this folder more time: the first of them waits for images and for the cluster itself."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(1800))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Says what the machine lacks before anything is built."""
    if session.items and (reason := machine.missing()):
        raise pytest.UsageError(reason)


@pytest.fixture(scope="session")
def cluster(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of two ready nodes that have the images: the standing one, or one for this session."""
    for plugin in pytestconfig.pluginmanager.get_plugins():
        if isinstance(found := getattr(plugin, "cluster", None), Cluster):
            yield found
            return
    with running(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def volumes(cluster: Cluster) -> SharedVolumes:
    """Claims that both nodes can mount."""
    return SharedVolumes(cluster.kube, cluster.folder / "volumes")


@pytest.fixture
def namespace(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace of the test's own, under the restricted pod security standard."""
    words = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")
    name = f"{words[:40].rstrip('-')}-{secrets.token_hex(3)}"
    cluster.plane.create_namespace(name, labels={"pod-security.kubernetes.io/enforce": "restricted"})
    yield name
    cluster.kube.delete("Namespace", name)


@pytest.fixture(scope="session")
def figures(pytestconfig: pytest.Config) -> dict[str, str]:
    """What was measured on the way, for people; printed at the end."""
    return pytestconfig.stash.setdefault(_FIGURES, {})


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Prints the figures."""
    for name, value in config.stash.get(_FIGURES, {}).items():
        terminalreporter.write_line(f"{name}: {value}")


@pytest.fixture(scope="session")
def operator(cluster: Cluster, figures: dict[str, str]) -> str:
    """The namespace of the operator, installed by Helm and ready."""
    bring = upgrade if cluster.kube.get("Namespace", NAMESPACE) else install
    began = time.monotonic()
    bring(cluster, namespace=NAMESPACE, values=VALUES)
    figures[f"helm {bring.__name__} until both replicas are ready"] = f"{time.monotonic() - began:.1f} s"
    return NAMESPACE


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pictures of the example: real handwriting."""
    folder = tmp_path_factory.mktemp("digits")
    subprocess.run([sys.executable, EXAMPLE.parent / "make_dataset.py", folder], check=True, stdout=subprocess.DEVNULL)
    folder.chmod(0o755)
    return folder


@pytest.fixture
def start(cluster: Cluster, operator: str, namespace: str, volumes: SharedVolumes, digits: Path) -> Callable[..., Run]:
    """Starts a run of the example, with changes of its spec, in the test's namespace."""
    volumes.fill("digits", namespace, digits)
    work = volumes.claim("ocr-work", namespace)

    def begin(changes: Manifest | None = None, *, name: str = "digits") -> Run:
        return Run(cluster, namespace, work, changes, name=name).apply()

    return begin


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Adds the end of every log to the report of a failed test."""
    report = yield
    cluster = getattr(item, "funcargs", {}).get("cluster")
    if report.failed and isinstance(cluster, Cluster):
        for name, tail in cluster.tails().items():
            report.sections.append((f"the end of {name}.log", tail))
    return report
