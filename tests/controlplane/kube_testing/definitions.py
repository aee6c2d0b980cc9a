"""Resource definitions of other projects, from their Go modules: what is made for them is checked against the real ones."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from . import binaries

if TYPE_CHECKING:
    from .client import Manifest

# Module, and the folder of it that holds one definition a file.
_PROJECTS = {
    "kueue": ("sigs.k8s.io/kueue@v0.10.1", "config/components/crd/bases"),
    "prometheus-operator": (
        "github.com/prometheus-operator/prometheus-operator@v0.85.0",
        "example/prometheus-operator-crd",
    ),
}


def definitions(project: str, *plurals: str) -> list[Manifest]:
    """Returns definitions of a project, which are downloaded once.

    Args:
        project: One of the keys of ``_PROJECTS``.
        *plurals: The resources' names.

    Raises:
        BuildError: The module can't be downloaded.
    """
    folder = _folder(project)
    return [yaml.safe_load(next(folder.glob(f"*_{plural}.yaml")).read_text()) for plural in plurals]


def _folder(project: str) -> Path:
    module, inside = _PROJECTS[project]
    folder = binaries.ROOT / ".cache" / "kubernetes" / module.replace("/", "_")
    if not folder.exists():
        done = subprocess.run(
            ["go", "mod", "download", "-json", module],
            cwd=binaries.TOOLS,
            env=os.environ | binaries.go_environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise binaries.BuildError(f"{module} can't be downloaded:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        aside = folder.with_name(f".{folder.name}.{os.getpid()}")
        shutil.copytree(Path(json.loads(done.stdout)["Dir"]) / inside, aside)
        aside.rename(folder)
    return folder
