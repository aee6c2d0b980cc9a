"""The first stage: from labelled pictures to a checked data set, a dictionary, a report, and checked weights.

It needs no GPU, and it says everything that is wrong before one is held.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ocr_finetune_api.exit_codes import DataError, InputMissingError, OCRFineTuneError
from ocr_finetune_api.model_table import Kind
from ocr_finetune_api.progress import Activity
from ocr_finetune_api.results import Choice
from ocr_finetune_api.run_config import RunConfig
from ocr_finetune_api.spec import OCRFineTuneSpec, Source
from ocr_finetune_api.workspace import Workspace
from ocr_finetune_trainer.data import report as data_report
from ocr_finetune_trainer.data import report_page
from ocr_finetune_trainer.data.catalogue import UNUSED, Catalogue
from ocr_finetune_trainer.data.fingerprint import fingerprint
from ocr_finetune_trainer.data.preparation import SHARDS, SIDE_NAMES, Examination, Settings, examine
from ocr_finetune_trainer.data.reading_progress import Tell
from ocr_finetune_trainer.data.recognition_samples import limits_of
from ocr_finetune_trainer.data.records import Problem, summary
from ocr_finetune_trainer.data.sources import Opener
from ocr_finetune_trainer.data.split import TEST, TRAIN, VALIDATION
from ocr_finetune_trainer.data.store import DataSet, replace_file, write_view
from ocr_finetune_trainer.dictionary import Dictionary, Merge, describe
from ocr_finetune_trainer.stages.context import StageContext, StageOutcome

if TYPE_CHECKING:
    from ocr_finetune_api.results import StageResult
    from ocr_finetune_trainer.models.store import Pretrained
    from ocr_finetune_trainer.models.weights import LoadReport

__all__ = ["choices_for", "is_current", "raise_errors", "run", "settings_for", "write_report"]

logger = logging.getLogger(__name__)

SHOWN_PROBLEMS = 20
READING = 95.0  # percent of the stage, about
END_TO_END = "end-to-end"
OFFICIAL = "official://"
WORKERS = "OCRFT_PREPARE_WORKERS"
SECRETS = "OCRFT_CREDENTIALS"


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
    weights, fitting, failure = _weights(context)
    context.reporter.activity(Activity.LOADING, "reading the data")

    def progress(share: float, what: str) -> None:
        context.reporter.update(percent=round(READING * share, 1), message=what)

    try:
        settings = settings_for(context.spec, workspace=workspace, progress=progress)
    except OCRFineTuneError as error:
        raise _both(failure, error) from error
    if weights is not None:
        settings = replace(settings, base=weights.dictionary)
    found = examine(settings)
    context.reporter.update(percent=READING, message="writing the report and the sets")
    write_rejected(workspace.rejected, found.problems)
    write_report(context.spec, found, folder=workspace.data)
    try:
        raise_errors(found, where=str(workspace.rejected))
    except OCRFineTuneError as error:
        raise _both(failure, error) from error
    if failure is not None:
        raise failure
    outcome = _write(context, found)
    if weights is not None and fitting is not None:
        outcome = _with_weights(context, found, outcome, weights=weights, fitting=fitting)
    return replace(outcome, fingerprint=state)


def _with_weights(
    context: StageContext, found: Examination, outcome: StageOutcome, *, weights: Pretrained, fitting: LoadReport
) -> StageOutcome:
    """Adds what becomes of the weights, and of their characters."""
    from ocr_finetune_trainer.models.store import fit

    model, merge = context.spec.model, found.merge
    notes = []
    if merge is not None and weights.dictionary is not None:
        if merge.dictionary != weights.dictionary:
            fitting = fit(model.name, context.workspace.weights, guided=model.guided, dictionary=merge.dictionary)
        notes = [_characters_line(merge)]
    return replace(
        outcome,
        warnings=[*fitting.lines(), *notes, *outcome.warnings],
        details={**outcome.details, "pretrained": {"sha256": weights.sha256, **fitting.document()}},
    )


def _characters_line(merge: Merge) -> str:
    """What became of the characters of the weights, named where they are few."""
    parts = [f"{len(merge.kept)} characters of the weights kept"]
    for characters, word in ((merge.new, "new"), (merge.dropped, "dropped")):
        named = f": {describe(characters, most=10)}" if characters else ""
        parts.append(f"{len(characters)} {word}{named}")
    return "; ".join(parts)


def _weights(context: StageContext) -> tuple[Pretrained | None, LoadReport | None, OCRFineTuneError | None]:
    """The pretrained weights and how they fit the model, or why there are none.

    The data is examined either way, to report all in one go.
    """
    from ocr_finetune_trainer.models.store import fit, obtain
    from ocr_finetune_trainer.training.checkpoint import load_best

    context.reporter.activity(Activity.LOADING, "fetching the weights")

    def progress(file: str, at: int, of: int) -> None:
        part = f" of {of >> 20}" if of else ""
        context.reporter.update(message=f"fetching {file}: {at >> 20}{part} MiB")

    model = context.spec.model
    try:
        weights = obtain(
            model.name,
            model.pretrained,
            workspace=context.workspace,
            best_of=lambda other: load_best(other).weights(),
            fetch=_opener(context.spec, cache=context.workspace.cache).fetch,
            progress=progress,
        )
        fitting = fit(model.name, context.workspace.weights, guided=model.guided) if weights is not None else None
    except OCRFineTuneError as error:
        return None, None, error
    return weights, fitting, None


def _both(first: OCRFineTuneError | None, second: OCRFineTuneError) -> OCRFineTuneError:
    if first is None:
        return second
    hints = "; ".join(hint for hint in (first.hint, second.hint) if hint)
    return OCRFineTuneError(*first.problems, *second.problems, hint=hints, exit_code=second.exit_code)


def settings_for(
    spec: OCRFineTuneSpec, *, workspace: Workspace, progress: Tell = lambda _share, _what: None
) -> Settings:
    """What is to be examined for a run; the dictionary of the weights is not in it yet.

    Raises:
        OCRFineTuneError: The dictionary file can't be read.
    """
    opener = _opener(spec, cache=workspace.cache)
    recognition = spec.model.kind is Kind.RECOGNITION
    return Settings(
        dataset=spec.dataset,
        model=spec.model,
        cache=workspace.cache,
        opener=opener,
        others=_others(spec),
        wanted=_wanted(spec, opener, workspace) if recognition else None,
        limits=limits_of(spec.model.name) if recognition else None,
        workers=_workers(),
        progress=progress,
    )


def _wanted(spec: OCRFineTuneSpec, opener: Opener, workspace: Workspace) -> Dictionary | None:
    """The dictionary that the manifest names: a file, or that of an official model."""
    from ocr_finetune_trainer.models.library import Library
    from ocr_finetune_trainer.models.store import official_dictionary

    uri = spec.model.dictionary.uri
    if not uri:
        return None
    space = {"auto": None, "yes": True, "no": False}[spec.model.dictionary.space]
    if not uri.startswith(OFFICIAL):
        return Dictionary.load(opener.fetch(uri), use_space=space)
    library = Library.from_environment(cache=workspace.cache / "models")
    config = library.pull_config(uri.removeprefix(OFFICIAL))
    return Dictionary(official_dictionary(config), use_space=space is not False)


def _opener(spec: OCRFineTuneSpec, *, cache: Path) -> Opener:
    from ocr_finetune_trainer.models.download import download

    secrets = os.environ.get(SECRETS, "")
    return Opener(
        cache=cache, download=download, credentials=spec.credentials, secrets=Path(secrets) if secrets else None
    )


def _others(spec: OCRFineTuneSpec) -> dict[str, tuple[Source, Kind]]:
    """The sets that stay by themselves: what must not be forgotten, and pages to be read with two models."""
    others = {
        f"guard-{guard.name}": (Source(uri=guard.uri, format=guard.format), spec.model.kind)
        for guard in spec.evaluation.guard
    }
    if spec.evaluation.end_to_end is not None:
        others[END_TO_END] = (spec.evaluation.end_to_end.dataset, Kind.DETECTION)
    return others


def _workers() -> int:
    asked = os.environ.get(WORKERS, "")
    return int(asked) if asked.isdecimal() and int(asked) else len(os.sched_getaffinity(0))


def write_rejected(path: Path, problems: Sequence[Problem]) -> None:
    """Writes every problem, one JSON object a line."""
    lines = "".join(json.dumps(problem.to_json(), ensure_ascii=False) + "\n" for problem in problems)
    replace_file(path, lines.encode("utf-8", "backslashreplace"))


def write_report(spec: OCRFineTuneSpec, found: Examination, *, folder: Path) -> dict[str, Any]:
    """Writes the data report as `report.json` and `report.html`.

    Returns:
        The report.
    """
    kind = spec.model.kind
    report = data_report.build(found, kind=kind, model=spec.model.name, choices=choices_for(spec, found))
    text = json.dumps(report, ensure_ascii=False, indent=1)
    replace_file(folder / "report.json", text.encode("utf-8", "backslashreplace"))
    page = report_page.render(report, stored=found.catalogue.sample, pages=kind is not Kind.RECOGNITION)
    replace_file(folder / "report.html", page.encode("utf-8", "backslashreplace"))
    return report


def choices_for(spec: OCRFineTuneSpec, found: Examination) -> tuple[Choice, ...]:
    """What `auto` will stand for in training, as far as the data decides it; the devices are not known yet."""
    from ocr_finetune_trainer.training.choices import Facts, choose

    samples = len(found.chosen(TRAIN))
    if not samples:
        return ()
    facts = Facts(
        samples=samples,
        validation_samples=len(found.chosen(VALIDATION)),
        gpu=spec.distributed.device == "gpu",
        new_characters=_new_share(found),
    )
    try:
        return choose(spec, facts).choices
    except OCRFineTuneError as error:
        logger.warning("%s", error)
        return ()


def _new_share(found: Examination) -> float:
    if found.merge is None or not found.merge.kept:
        return 0.0
    return len(found.merge.new) / max(found.merge.dictionary.size, 1)


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
    counts = _views(workspace, found)
    details: dict[str, Any] = {
        "kind": context.spec.model.kind.value,
        "counts": counts,
        "sources": _source_counts(found),
        "contentHash": {name: DataSet.open(workspace.data / name).content_hash for name in counts},
        "unusable": dict(found.unusable),
        "rejected": found.rejected,
        "optimistic": "test" not in counts,
    }
    inside = partial(_relative, workspace)
    artifacts = {
        "rejected": inside(workspace.rejected),
        "report": inside(workspace.data / "report.html"),
        "reportData": inside(workspace.data / "report.json"),
    }
    choices: list[Choice] = []
    if found.merge is not None:
        aside = workspace.dictionary.with_name(f".{workspace.dictionary.name}.new")
        found.merge.dictionary.save(aside)
        aside.replace(workspace.dictionary)
        artifacts["dictionary"] = inside(workspace.dictionary)
        details |= _dictionary_details(found)
        choices = _choices(context.spec, found)
    warnings = [str(problem) for problem in found.problems if not problem.samples and not problem.fatal]
    return StageOutcome(
        metrics={"samples": counts, "rejected": found.rejected},
        artifacts=artifacts,
        choices=choices,
        warnings=summary_of(warnings, where=str(workspace.rejected)),
        details=details,
    )


def summary_of(warnings: Sequence[str], *, where: str) -> list[str]:
    """The first warnings, and how many more there are."""
    more = len(warnings) - SHOWN_PROBLEMS
    return [*warnings[:SHOWN_PROBLEMS], *([f"… and {more} more, all of them in {where}"] if more > 0 else [])]


def _views(workspace: Workspace, found: Examination) -> dict[str, int]:
    counts = {}
    for side, name in SIDE_NAMES.items():
        chosen = found.chosen(side)
        if side == TEST and not len(chosen):
            # An earlier preparation may have left one; what is not there now must not be found.
            (workspace.data / name / "dataset.json").unlink(missing_ok=True)
            continue
        counts[name] = _view(workspace, name, found.catalogue, chosen)
    for name, catalogue in found.others.items():
        counts[name] = _view(workspace, name, catalogue, np.flatnonzero(catalogue.side != UNUSED))
    return counts


def _view(workspace: Workspace, name: str, catalogue: Catalogue, chosen: Any) -> int:
    return write_view(
        workspace.data / name,
        cache=workspace.cache / SHARDS,
        shards=catalogue.shards,
        sources=catalogue.sources,
        rows=catalogue.rows(chosen),
    )


def _dictionary_details(found: Examination) -> dict[str, Any]:
    assert found.merge is not None
    merged = found.merge
    return {
        "dictionary": {
            "size": merged.dictionary.size,
            "space": merged.dictionary.use_space,
            "mode": merged.mode.value,
            "kept": len(merged.kept),
            "new": len(merged.new),
            "dropped": len(merged.dropped),
        },
        "maxTextLength": found.max_text_length,
    }


def _choices(spec: OCRFineTuneSpec, found: Examination) -> list[Choice]:
    assert found.merge is not None
    choices = []
    if spec.model.dictionary.mode == "auto":
        new = len(found.merge.new)
        reason = {
            "keep": "the pretrained dictionary has every character of the data",
            "extend": f"the data has {new} characters that the pretrained dictionary lacks",
            "replace": "there are no pretrained characters to keep",
        }[found.merge.mode.value]
        choices.append(Choice(name="model.dictionary.mode", value=found.merge.mode.value, reason=reason))
    if spec.model.max_text_length == "auto":
        choices.append(
            Choice(
                name="model.maxTextLength",
                value=str(found.max_text_length),
                reason="the longest label of the training data, at least 25",
            )
        )
    return choices


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
