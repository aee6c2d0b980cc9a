"""Fixtures of the trainings in `training_rig`."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from training_rig import TRAIN, VALIDATION, Job, Zygote, digits, write_set

from ocr_finetune_trainer.dictionary import Dictionary


@pytest.fixture(scope="session")
def zygote(tmp_path_factory) -> Iterator[Zygote]:
    process = Zygote(tmp_path_factory.mktemp("zygote"))
    yield process
    process.close()


@pytest.fixture(scope="session")
def prepared(tmp_path_factory) -> Path:
    """A workspace with prepared digits."""
    root = tmp_path_factory.mktemp("prepared")
    job = Job(root, {})
    workspace = job.workspace
    write_set(workspace, "train", digits(TRAIN))
    write_set(workspace, "validation", digits(VALIDATION, start=TRAIN))
    Dictionary(tuple("0123456789"), use_space=False).save(workspace.dictionary)
    return root


@pytest.fixture
def make_job(prepared: Path, tmp_path: Path) -> Callable[..., Job]:
    """A training on a copy of the prepared workspace; 2 epochs of 6 steps unless said otherwise."""
    count = 0

    def make(*, model: dict[str, Any] | None = None, distributed: dict[str, Any] | None = None, **training: Any) -> Job:
        nonlocal count
        count += 1
        root = tmp_path / f"job-{count}"
        shutil.copytree(prepared, root, symlinks=True)
        defaults = {"epochs": 2, "batchSize": 8, "learningRate": 0.002, "workers": 0, "augmentation": "none"}
        return Job(root, defaults | training, model or {}, {"device": "cpu"} | (distributed or {}))

    return make
