"""Keeps one cluster for many runs of the tests, while one works on them: ``make e2e-standing``.

Every line of the standard input holds arguments of pytest, such as ``-k drained``; the end of the input ends the
cluster. Images are built once, at the start; what the tests left broken is mended between two runs.
"""

from __future__ import annotations

import shlex
import sys
import tempfile
from pathlib import Path

import pytest
from cluster_testing import machine
from cluster_testing.cluster import Cluster, running

FOLDER = Path(__file__).parent


class Standing:
    """A plugin of pytest that has a cluster; the fixture of that name asks for it.

    Args:
        cluster: The cluster.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster


def main() -> int:
    """Starts the cluster and runs what is asked for."""
    if reason := machine.missing():
        sys.stderr.write(f"{reason}\n")
        return 1
    with tempfile.TemporaryDirectory(prefix="cluster-") as folder, running(Path(folder)) as cluster:
        print("the cluster stands; every line is given to pytest", flush=True)
        for line in sys.stdin:
            # Modules of tests are read anew, so that changes of them count; the cluster's own stay.
            for name, module in list(sys.modules.items()):
                file = Path(getattr(module, "__file__", None) or "/")
                if FOLDER in file.parents and not name.startswith("cluster_testing"):
                    del sys.modules[name]
            pytest.main([str(FOLDER), *shlex.split(line)], plugins=[Standing(cluster)])
            cluster.mend()
            print("done", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
