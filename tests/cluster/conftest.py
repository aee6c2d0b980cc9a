"""Fixtures of a whole cluster; ``cluster_testing`` says how it is made. Run by ``make e2e``, not by ``make test``."""

from __future__ import annotations

import os
import re
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "controlplane"))

from cluster_testing import images, machine
from cluster_testing.cluster import Cluster
from cluster_testing.volumes import SharedVolumes

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

_FULL_CLAIM_MEGABYTES = 24


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips the cluster's tests with the reason where no cluster can run, unless one is demanded (E2E=1)."""
    reason = machine.missing()
    if not reason:
        return
    if os.environ.get("E2E") == "1":
        raise pytest.UsageError(reason)
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of two ready nodes that have the images."""
    archives = images.archives("operator", "trainer")
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    volumes = SharedVolumes(cluster.kube, cluster.folder / "volumes")
    cluster.small_folder = volumes.small("full", megabytes=_FULL_CLAIM_MEGABYTES)
    try:
        cluster.start(archives)
        yield cluster
    finally:
        cluster.stop()
        volumes.unmount()


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


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Adds the end of every log to the report of a failed test."""
    report = yield
    cluster = getattr(item, "funcargs", {}).get("cluster")
    if report.failed and isinstance(cluster, Cluster):
        for name, tail in cluster.tails().items():
            report.sections.append((f"the end of {name}.log", tail))
    return report
