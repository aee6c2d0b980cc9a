"""What the machine has to have for a cluster, and small calls to its tools."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# Program and the Debian package that brings it.
PROGRAMS = {
    "buildah": "buildah",
    "catatonit": "catatonit",
    "containerd": "containerd",
    "debootstrap": "debootstrap",
    "ip": "iproute2",
    "iptables": "iptables",
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "runc": "runc",
}
CNI_PLUGINS = Path("/usr/lib/cni")
_LOCK = Path("/run/lock/ocr-finetune-cluster")
_CNI_PACKAGE = "containernetworking-plugins"


class MachineError(RuntimeError):
    """A tool of the machine failed."""


def missing() -> str:
    """Returns why no cluster can run here, with what to do about it; empty if one can."""
    if sys.platform != "linux":
        return "the cluster tests need Linux"
    if os.geteuid() != 0:
        return "the cluster tests need root: they make network namespaces and run kubelets"
    packages = sorted(
        {package for program, package in PROGRAMS.items() if not shutil.which(program, path=search_path())}
        | (set() if (CNI_PLUGINS / "bridge").exists() else {_CNI_PACKAGE})
    )
    if packages:
        return f"the cluster tests need Debian packages: apt-get install --no-install-recommends {' '.join(packages)}"
    return ""


@contextlib.contextmanager
def only_cluster() -> Iterator[None]:
    """Holds this machine's one place for a cluster: two would take each other's bridge and namespaces away.

    Raises:
        MachineError: Another one runs, of this checkout or another one.
    """
    with _LOCK.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise MachineError(
                "another cluster of these tests runs on this machine; wait until it has ended"
            ) from error
        yield


def search_path() -> str:
    """Returns where programs are looked for: a user's PATH may lack sbin."""
    return f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin"


def call(*command: str | Path, quiet: bool = False, env: dict[str, str] | None = None) -> str:
    """Runs a program and returns what it printed.

    Args:
        *command: Program and arguments.
        quiet: Whether a failure is ignored, for cleaning up.
        env: More environment.

    Raises:
        MachineError: If it fails.
    """
    environment = os.environ | {"PATH": search_path()} | (env or {})
    parts = [str(part) for part in command]
    done = subprocess.run(parts, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0 and not quiet:
        raise MachineError(f"{' '.join(parts)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def processes_in(namespace: str) -> list[int]:
    """Returns the ids of the processes in a named network namespace."""
    found = call("ip", "netns", "pids", namespace, quiet=True)
    return [int(pid) for pid in found.split()]


def controllers() -> Sequence[Path]:
    """Returns the roots of the cgroup controllers (version 1)."""
    root = Path("/sys/fs/cgroup")
    return [path for path in sorted(root.iterdir()) if path.is_dir() and path.name != "unified"]
