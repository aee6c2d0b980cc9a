"""Runs `ocrft` as a person does: as a process, on real handwriting."""

from __future__ import annotations

import csv
import json
import runpy
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from local_run import DIGITS, Run, command, environment

FEW = 120

Ocrft = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def ocrft() -> Ocrft:
    """Runs `ocrft` to its end."""

    def run(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        defaults: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 500, "env": environment()}
        return subprocess.run(command(*arguments), **(defaults | options), check=False)

    return run


@pytest.fixture(scope="session")
def digits(tmp_path_factory) -> Path:
    """All 1,797 handwritten digits as folders by character."""
    folder = tmp_path_factory.mktemp("digits") / "data"
    runpy.run_path(str(DIGITS / "make_dataset.py"))["write"](folder)
    return folder


@pytest.fixture(scope="session")
def few(tmp_path_factory, digits) -> Path:
    """A hundred and twenty of them."""
    folder = tmp_path_factory.mktemp("few")
    with (digits / "samples.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))[: FEW + 1]
    for row in rows[1:]:
        (folder / row[0]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(digits / row[0], folder / row[0])
    with (folder / "samples.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    shutil.copy(digits / "id2char.json", folder)
    return folder


@pytest.fixture(scope="session")
def make_run(digits: Path) -> Callable[..., Run]:
    """Writes a manifest for the digits, the demo's with changes, and names a workspace beside it."""

    def make(folder: Path, **changes: Any) -> Run:
        folder.mkdir(parents=True, exist_ok=True)
        document = yaml.safe_load((DIGITS / "finetune.yaml").read_text(encoding="utf-8"))
        document["spec"]["dataset"]["train"][0]["uri"] = str(digits)
        (folder / "finetune.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
        run = Run(folder / "finetune.yaml", folder / "workspace")
        run.change({key.replace("__", "."): value for key, value in changes.items()})
        return run

    return make


@pytest.fixture(scope="session")
def finished(tmp_path_factory, make_run, ocrft) -> tuple[Run, dict[str, Any]]:
    """The demo, done: the run and what `ocrft run --json` printed."""
    run = make_run(tmp_path_factory.mktemp("demo"))
    done = ocrft("run", run.manifest, "--workspace", run.root, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    return run, json.loads(done.stdout)
