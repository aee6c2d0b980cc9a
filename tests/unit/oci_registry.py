"""A real OCI registry on this machine, that of go-containerregistry, built once from its Go module."""

from __future__ import annotations

import os
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from controlplane.kube_testing.binaries import go_environment
from ports import reserved

VERSION = "v0.22.1"
FOLDER = Path(__file__).parents[2] / ".cache" / "registry" / VERSION


def program() -> Path:
    """The registry's program."""
    path = FOLDER / "registry"
    if not path.is_file():
        aside = FOLDER / f".building-{os.getpid()}"
        aside.mkdir(parents=True, exist_ok=True)
        environment = os.environ | {"CGO_ENABLED": "0"} | go_environment() | {"GOBIN": str(aside)}
        module = f"github.com/google/go-containerregistry/cmd/registry@{VERSION}"
        subprocess.run(["go", "install", "-trimpath", "-ldflags", "-s -w", module], env=environment, check=True)
        (aside / "registry").rename(path)
        aside.rmdir()
    return path


@contextmanager
def running() -> Iterator[str]:
    """Starts it; gives host and port."""
    with reserved() as port:
        process = subprocess.Popen(
            [program(), "-port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            _wait_for(process, port)
            yield f"127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait()


def _wait_for(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/", timeout=5):
                return
        except OSError:
            assert process.poll() is None, "the registry has ended"
            assert time.monotonic() < deadline, "the registry does not answer"
            time.sleep(0.05)
