"""The first stage: from labelled pictures to a checked data set, a dictionary, a report, and checked weights.

It needs no GPU, and it says everything that is wrong before one is held.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ocr_finetune_api.exit_codes import DataError, InputMissingError, OCRFineTuneError
from ocr_finetune_api.model_table import Kind
from ocr_finetune_api.progress import Activity
from ocr_finetune_api.results import Choice, StageResult
from ocr_finetune_api.run_config import RunConfig
from ocr_finetune_api.workspace import Workspace
from ocr_finetune_trainer.data.catalogue import UNUSED, Catalogue
from ocr_finetune_trainer.data.fingerprint import fingerprint
from ocr_finetune_trainer.data.preparation import SHARDS, SIDE_NAMES, Examination, Settings, examine
from ocr_finetune_trainer.data.recognition_samples import limits_of
from ocr_finetune_trainer.data.records import Problem, summary
from ocr_finetune_trainer.data.sources import Opener
from ocr_finetune_trainer.data.split import TEST
from ocr_finetune_trainer.data.store import DataSet, replace_file, write_view
from ocr_finetune_trainer.dictionary import Dictionary
from ocr_finetune_trainer.stages.context import StageContext, StageOutcome

__all__ = ["is_current", "run", "settings_of"]

SHOWN_PROBLEMS = 20
WORKERS = "OCRFT_PREPARE_WORKERS"


def run(context: StageContext) -> StageOutcome:
    """Prepares the data and the weights of a run.

    Raises:
        DataError: The data can't be used; all problems are listed.
        InputMissingError: A source does not exist or can't be reached.
        OSError: The workspace can't be written.
    """
    workspace = context.workspace
    workspace.data.mkdir(parents=True, exist_ok=True)
    # Taken before the first file is read, so that what changes meanwhile is seen the next time.
    state = fingerprint(context.spec)
    context.reporter.activity(Activity.LOADING, "reading the data")
    done = 0

    def progress(count: int) -> None:
        nonlocal done
        done += count
        context.reporter.update(step=done, message=f"{done} pictures examined")

    settings = settings_of(context, progress=progress)
    found = examine(settings)
    write_rejected(workspace.rejected, found.problems)
    raise_errors(found, where=str(workspace.rejected))
    outcome = _write(context, found)
    context.reporter.update(percent=100.0)
    return replace(outcome, fingerprint=state)


def settings_of(context: StageContext, *, progress: Any = lambda _: None) -> Settings:
    """What is to be examined for a run.

    Raises:
        OCRFineTuneError: The dictionary or the weights can't be had.
    """
    spec = context.spec
    wanted = None
    if spec.model.kind is Kind.RECOGNITION and spec.model.dictionary.uri:
        wanted = Dictionary.load(Path(spec.model.dictionary.uri))
    return Settings(
        dataset=spec.dataset,
        model=spec.model,
        cache=context.workspace.cache,
        opener=Opener(),
        others={},
        base=None,
        wanted=wanted,
        limits=limits_of(spec.model.name) if spec.model.kind is Kind.RECOGNITION else None,
        workers=workers(),
        progress=progress,
    )


def workers() -> int:
    """How many processes open pictures."""
    asked = os.environ.get(WORKERS, "")
    return int(asked) if asked.isdecimal() and int(asked) else len(os.sched_getaffinity(0))


def write_rejected(path: Path, problems: Sequence[Problem]) -> None:
    """Writes every problem, one JSON object a line."""
    lines = "".join(json.dumps(problem.to_json(), ensure_ascii=False) + "\n" for problem in problems)
    replace_file(path, lines.encode("utf-8", "backslashreplace"))


def raise_errors(found: Examination, *, where: str) -> None:
    """Ends the stage if the data can't be used.

    Raises:
        InputMissingError: All that is wrong is that something is not there.
        DataError: Anything else; all problems are listed, or counted and listed in a file.
    """
    if not found.errors:
        return
    others = [problem for problem in found.problems if not problem.fatal and problem.samples]
    lines = [str(problem) for problem in found.errors]
    if others:
        lines += summary(others, limit=SHOWN_PROBLEMS, where=where)
    kind: type[OCRFineTuneError] = DataError
    if all(problem.missing for problem in found.errors):
        kind = InputMissingError
    raise kind(*lines, hint=f"all problems are in {where}")


def _write(context: StageContext, found: Examination) -> StageOutcome:
    workspace = context.workspace
    counts = {}
    for side, name in SIDE_NAMES.items():
        if side == TEST and not len(found.chosen(TEST)):
            continue
        counts[name] = _view(workspace, name, found.catalogue, found.chosen(side))
    for name, catalogue in found.others.items():
        counts[name] = _view(workspace, name, catalogue, np.flatnonzero(catalogue.side != UNUSED))
    details: dict[str, Any] = {
        "kind": context.spec.model.kind.value,
        "counts": counts,
        "sources": _source_counts(found),
        "contentHash": {name: DataSet.open(workspace.data / name).content_hash for name in counts},
        "unusable": dict(found.unusable),
        "rejected": found.rejected,
        "optimistic": "test" not in counts,
    }
    choices: list[Choice] = []
    artifacts = {"rejected": _relative(workspace, workspace.rejected)}
    if found.merge is not None:
        aside = workspace.dictionary.with_name(f".{workspace.dictionary.name}.new")
        found.merge.dictionary.save(aside)
        aside.replace(workspace.dictionary)
        artifacts["dictionary"] = _relative(workspace, workspace.dictionary)
        details["dictionary"] = {
            "size": found.merge.dictionary.size,
            "space": found.merge.dictionary.use_space,
            "mode": found.merge.mode.value,
            "kept": len(found.merge.kept),
            "new": len(found.merge.new),
            "dropped": len(found.merge.dropped),
        }
        details["maxTextLength"] = found.max_text_length
    warnings = [str(problem) for problem in found.problems if not problem.samples and not problem.fatal]
    return StageOutcome(
        metrics={"samples": counts, "rejected": found.rejected},
        artifacts=artifacts,
        choices=choices,
        warnings=warnings[:50],
        details=details,
    )


def _view(workspace: Workspace, name: str, catalogue: Catalogue, chosen: Any) -> int:
    return write_view(
        workspace.data / name,
        cache=workspace.cache / SHARDS,
        shards=catalogue.shards,
        sources=catalogue.sources,
        rows=catalogue.rows(chosen),
    )


def _source_counts(found: Examination) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = {}
    for side, name in SIDE_NAMES.items():
        numbers = np.bincount(found.catalogue.source[found.chosen(side)], minlength=len(found.sources))
        for source, number in zip(found.sources, numbers, strict=True):
            if number:
                counts.setdefault(name, {})[source.name] = int(number)
    return counts


def _relative(workspace: Workspace, path: Path) -> str:
    return str(path.relative_to(workspace.folder))


def is_current(done: StageResult, config: RunConfig) -> bool:
    """Whether the sources are still as they were when the result was made."""
    return done.fingerprint == fingerprint(config.spec)
