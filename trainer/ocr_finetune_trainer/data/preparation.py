"""Examines the data of a run from addresses to splits, and says everything that is wrong with it in one go.

`examine` never stops at the first mistake: a source that can't be read is a problem among others, and the caller
decides what to do with the list. Both `prepare` and `ocrft check` are this function.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ocr_finetune_api.exit_codes import ConfigurationError, DataError, InputMissingError, OCRFineTuneError
from ocr_finetune_api.model_table import Kind
from ocr_finetune_api.spec import DatasetSpec, HeldOut, ModelSpec, Source, SourceFormat
from ocr_finetune_api.values import fraction
from ocr_finetune_trainer.data import duplicates, formats, split, synthetic_lines
from ocr_finetune_trainer.data.catalogue import UNUSED, Catalogue, Part, collect
from ocr_finetune_trainer.data.ingest import RECORDS_A_SHARD, ingest
from ocr_finetune_trainer.data.label_checks import check_labels, check_structures, clean, decide_dictionary
from ocr_finetune_trainer.data.labels import Cleaner, Limits
from ocr_finetune_trainer.data.picture_processes import PictureProcesses
from ocr_finetune_trainer.data.reading_progress import ReadingProgress, Tell
from ocr_finetune_trainer.data.records import Problem
from ocr_finetune_trainer.data.sources import Opener
from ocr_finetune_trainer.data.split import TEST, TRAIN, VALIDATION, Fractions
from ocr_finetune_trainer.dictionary import Dictionary, Merge
from ocr_finetune_trainer.processes import no_search_for_cycles

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ocr_finetune_trainer.data.store import Shard

__all__ = ["Examination", "Settings", "SourceReport", "examine"]

SHARDS = "shards"
SIDE_NAMES = {TRAIN: "train", VALIDATION: "validation", TEST: "test"}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is to be examined.

    Attributes:
        dataset: The data set of the manifest.
        model: The model of the manifest.
        others: Further sets that stay by themselves, by name: guards, end-to-end pages.
        cache: The workspace's cache.
        opener: Opens sources, wherever they lie.
        base: The dictionary of the pretrained weights; None from scratch or for models without one.
        wanted: A dictionary file of the user's own.
        limits: What a recognition model can be trained on; None for other kinds.
        workers: Processes that open pictures.
        progress: Told how far reading is, and what is being done.
    """

    dataset: DatasetSpec
    model: ModelSpec
    cache: Path
    opener: Opener
    others: Mapping[str, tuple[Source, Kind]] = field(default_factory=dict)
    base: Dictionary | None = None
    wanted: Dictionary | None = None
    limits: Limits | None = None
    workers: int = 1
    progress: Tell = lambda _share, _what: None

    @property
    def kind(self) -> Kind:
        """What the model does."""
        return self.model.kind


@dataclass(frozen=True, kw_only=True)
class SourceReport:
    """What is known of one source.

    Attributes:
        name: Its name.
        uri: Its address.
        format: The layout it was read as; empty if it could not be read.
        reason: What shows that it has this layout.
        records: Samples that its labels speak of.
        shards: Its shards.
        reused: How many of them were there already.
        ways: How its pictures were found, with counts.
    """

    name: str
    uri: str
    format: str = ""
    reason: str = ""
    records: int = 0
    shards: Sequence[Shard] = ()
    reused: int = 0
    ways: Mapping[str, int] = field(default_factory=dict)


@dataclass(kw_only=True)
class Examination:
    """Everything found out about the data of a run.

    Attributes:
        sources: The sources, in the order of the manifest: training, validation, test.
        catalogue: All samples of them.
        others: Further sets, each by itself.
        problems: Everything that is wrong, warnings among it (`Problem.samples == 0` and not fatal).
        errors: Why the run can't go on; empty if it can.
        merge: The dictionary; None for models without one.
        max_text_length: Longest label to be trained on, in entries.
        cleaner: What was changed in labels.
        exact: Pairs of equal pictures.
        near: Pairs of pictures that look the same.
        leaks: Pairs of `exact` and `near` that a given split separates.
        given: Whether the data set brought a split of its own.
        unusable: Samples of each side that could not be used at all; in a test set they count as wrong.
        too_long: Samples whose labels are too long to be trained on, or to be read.
        frames: For each sample the frames that CTC needs for its label; empty for other kinds.
    """

    sources: list[SourceReport]
    catalogue: Catalogue
    others: dict[str, Catalogue] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    errors: list[Problem] = field(default_factory=list)
    merge: Merge | None = None
    max_text_length: int = 0
    cleaner: Cleaner
    exact: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 2), dtype=np.int64))
    near: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 2), dtype=np.int64))
    leaks: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 2), dtype=np.int64))
    given: bool = False
    unusable: Counter[str] = field(default_factory=Counter)
    too_long: list[int] = field(default_factory=list)
    frames: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, dtype=np.int32))

    def chosen(self, side: int) -> NDArray[np.int64]:
        """Numbers of the samples of a side, in rising order."""
        return np.flatnonzero(self.catalogue.side == side)

    @property
    def rejected(self) -> int:
        """How many samples can't be used."""
        return sum(problem.samples for problem in self.problems)

    @property
    def total(self) -> int:
        """How many samples there are, usable or not."""
        return sum(source.records for source in self.sources)


@no_search_for_cycles()
def examine(settings: Settings) -> Examination:
    """Examines all data of a run.

    Returns:
        What was found; `errors` says why the run can't go on.

    Raises:
        OSError: The cache can't be written.
    """
    problems: list[Problem] = []
    plans = _plans(settings.dataset)
    count = len(plans) + len(settings.others) + (settings.dataset.synthetic is not None)
    reading = ReadingProgress(settings.progress, sources=count)
    settings = replace(settings, opener=replace(settings.opener, progress=reading.copy))
    with PictureProcesses(settings.workers) as processes:
        reader = _Reader(settings=settings, problems=problems, reading=reading, processes=processes)
        return _examine(settings, plans, reader)


def _examine(settings: Settings, plans: list[tuple[str, Source, int]], reader: _Reader) -> Examination:
    problems = reader.problems
    reports = [reader.read(name, source, settings.kind) for name, source, _ in plans]
    real = sum(report.records for report in reports[: len(settings.dataset.train)])
    drawn = _drawn(settings, real, problems, reader.reading)
    if drawn is not None:
        plans.append((synthetic_lines.NAME, drawn, TRAIN))
        reports.append(reader.read(synthetic_lines.NAME, drawn, settings.kind))
    parts = [
        Part(name=report.name, shards=report.shards, side=side)
        for report, (_, _, side) in zip(reports, plans, strict=True)
    ]
    catalogue = collect(parts, folder=settings.cache / SHARDS, group_by=settings.dataset.group_by)
    known = settings.wanted or settings.base
    cleaner = Cleaner(settings.dataset.text, known=known if known is not None else ())
    found = Examination(sources=reports, catalogue=catalogue, problems=problems, cleaner=cleaner)
    _check_kind(settings, found)
    if settings.kind is Kind.RECOGNITION:
        clean(found, catalogue)
    fill_sides = _split(settings, found)
    if settings.kind is Kind.RECOGNITION:
        decide_dictionary(settings, found)
        check_labels(settings, found)
    if settings.kind is Kind.TABLE:
        check_structures(settings, found)
    fill_sides()
    for name, (source, kind) in settings.others.items():
        _read_other(reader, name, source, kind, found=found)
    _judge(settings, found)
    return found


def _plans(dataset: DatasetSpec) -> list[tuple[str, Source, int]]:
    plans: list[tuple[str, Source, int]] = [(source.name, source, -1) for source in dataset.train]
    held: list[tuple[str, HeldOut | None, int]] = [
        ("validation", dataset.validation, VALIDATION), ("test", dataset.test, TEST)
    ]  # fmt: skip
    plans += [(name, part.source(), side) for name, part, side in held if part is not None and part.uri]
    return plans


def _drawn(settings: Settings, real: int, problems: list[Problem], reading: ReadingProgress) -> Source | None:
    """The source of drawn lines, if the manifest wants any."""
    wanted = settings.dataset.synthetic
    count = round(wanted.share * real) if wanted is not None else 0
    if wanted is None or not count:
        return None
    if settings.kind is not Kind.RECOGNITION:
        problems.append(
            Problem(
                kind="no-boxes",
                place="dataset.synthetic",
                what=f"draws lines of text, and {settings.model.name} needs pages",
                hint="take it out, or choose a recognition model",
                fatal=True,
                samples=0,
            )
        )
        return None
    reading.begin(synthetic_lines.NAME)
    try:
        recipe = synthetic_lines.Recipe(
            corpus=settings.opener.fetch(wanted.corpus),
            fonts=settings.opener.fetch(wanted.fonts),
            backgrounds=settings.opener.fetch(wanted.backgrounds) if wanted.backgrounds else None,
            count=count,
        )
        folder = synthetic_lines.draw(recipe, cache=settings.cache, progress=reading.draw)
        return Source(uri=str(folder), format=SourceFormat.PPOCR)
    except (ConfigurationError, DataError, InputMissingError) as error:
        problems += [_of_error(what, error, synthetic_lines.NAME) for what in error.problems]
        return None


def _of_error(what: str, error: OCRFineTuneError, source: str) -> Problem:
    place, _, rest = what.partition(": ")
    return Problem(
        kind="unreadable-source",
        source=source,
        place=place,
        what=rest or what,
        hint=error.hint,
        fatal=True,
        missing=isinstance(error, InputMissingError),
        samples=0,
    )


@dataclass(frozen=True, kw_only=True)
class _Reader:
    """Reads one source after the other.

    Attributes:
        settings: The run's.
        problems: Where what is wrong with a source goes.
        reading: How far all of them are.
        processes: What opens the pictures.
    """

    settings: Settings
    problems: list[Problem]
    reading: ReadingProgress
    processes: PictureProcesses

    def read(self, name: str, source: Source, kind: Kind) -> SourceReport:
        """Reads a source; if it can't be read, its report is empty and its problem says why.

        Raises:
            OSError: The cache can't be written.
            OCRFineTuneError: A copy of it can't be written, or a process that opens pictures was killed.
        """
        if name != synthetic_lines.NAME:  # begun when its lines were drawn
            self.reading.begin(name)
        try:
            opened = self.settings.opener.open(source)
            prefix = (source.path_prefix.from_, source.path_prefix.to) if source.path_prefix else None
            request = formats.Request(
                files=opened.files,
                kind=kind,
                list_file=opened.list_file,
                columns=source.columns,
                include_unconfirmed=source.include_unconfirmed,
                prefix=prefix,
            )
            expected = opened.files.count(opened.list_file)
            self.reading.expect(expected)
            if expected > RECORDS_A_SHARD:
                self.processes.start()
            if source.format.value == "auto":
                recognised = formats.recognise(request)
            else:
                recognised = formats.Recognised(format=source.format, reason="the manifest says so")
            result = ingest(
                opened.files,
                formats.layout(recognised.format).read(request),
                folder=self.settings.cache / SHARDS,
                crop=kind in (Kind.RECOGNITION, Kind.ORIENTATION),
                processes=self.processes,
                done=self.reading.examine,
            )
        except (ConfigurationError, DataError, InputMissingError) as error:  # not what is wrong with this machine
            self.problems.extend(_of_error(what, error, name) for what in error.problems)
            return SourceReport(name=name, uri=source.uri)
        finally:
            self.reading.end()
        self.problems.extend(_with_source(problem, name) for problem in result.problems)
        if not result.records and not any(problem.fatal for problem in result.problems):
            self.problems.append(
                Problem(
                    kind="empty-source",
                    source=name,
                    place=source.uri,
                    what="holds no labelled picture",
                    fatal=True,
                    samples=0,
                    hint="look at its format, or at the list it names",
                )
            )
        return SourceReport(
            name=name,
            uri=source.uri,
            format=recognised.format.value,
            reason=recognised.reason,
            records=result.records,
            shards=result.shards,
            reused=result.reused,
            ways=dict(request.resolver.ways),
        )


def _with_source(problem: Problem, name: str) -> Problem:
    values = problem.to_json()
    return Problem(**{**values, "source": name})


def _check_kind(settings: Settings, found: Examination) -> None:
    if settings.kind not in (Kind.DETECTION, Kind.TABLE):
        return
    wanted = "tables with cells" if settings.kind is Kind.TABLE else "text on pages"
    lines = found.catalogue.boxes < 0
    if settings.kind is Kind.TABLE:
        lines |= np.asarray([not text for text in found.catalogue.texts], dtype=bool)
    for number in np.unique(found.catalogue.source[lines]):
        name = found.catalogue.sources[number]
        found.problems.append(
            Problem(
                kind="no-boxes",
                source=name,
                place=found.sources[number].uri,
                fatal=True,
                samples=0,
                what=f"holds pictures of something else, but {settings.model.name} learns {wanted}"
                if settings.kind is Kind.TABLE
                else f"holds pictures of text lines, but {settings.model.name} learns to find {wanted}",
                hint="give PubTabNet's JSON lines, or pictures with an HTML file each"
                if settings.kind is Kind.TABLE
                else "give pages with boxes, or choose a recognition model",
            )
        )
    found.catalogue.side[lines] = UNUSED


def _split(settings: Settings, found: Examination) -> Callable[[], None]:
    """Splits the samples.

    Returns:
        What gives sides that are still empty a part of the training, to be called when it is known what can be used.
    """
    catalogue = found.catalogue
    found.exact, found.near = duplicates.find(
        catalogue.across,
        catalogue.down,
        catalogue.digest,
        cells=catalogue.cells,
        ratios=catalogue.width / np.maximum(catalogue.height, 1),
        picture=catalogue.picture,
    )
    pairs = np.concatenate([found.exact, found.near])
    given = catalogue.given.copy()
    dataset = settings.dataset
    real = catalogue.source < len(dataset.train)
    found.given = bool(np.any(given[real] != -1))
    fractions = Fractions(
        validation=_fraction(dataset.validation, given, VALIDATION), test=_fraction(dataset.test, given, TEST)
    )
    given[given == TRAIN] = -1
    roots = split.components(len(catalogue), catalogue.group, pairs)
    keys = np.where(catalogue.group != 0, catalogue.group, catalogue.digest)
    if synthetic_lines.NAME in catalogue.sources:
        # Nothing is measured on what was drawn.
        given[catalogue.source == catalogue.sources.index(synthetic_lines.NAME)] = TRAIN
    sides = split.split(roots, keys, given, fractions)
    catalogue.side = np.where(catalogue.side == UNUSED, UNUSED, sides).astype(np.int8)
    found.leaks = split.leaks(pairs, catalogue.side)
    found.leaks = found.leaks[(catalogue.side[found.leaks] != UNUSED).all(axis=1)]
    _count_unusable(found, fractions)

    def fill() -> None:
        usable = (given < 0) & (catalogue.side != UNUSED)
        catalogue.side = split.fill_empty(catalogue.side, roots, keys, usable, fractions)

    return fill


def _fraction(part: HeldOut | None, given: NDArray[np.int8], side: int) -> float:
    if part is None or part.fraction is None or np.any(given == side):
        return 0.0
    return part.fraction


def _count_unusable(found: Examination, fractions: Fractions) -> None:
    """Unusable samples belong to a side too: that of their set, or by a hash as usable ones."""
    for problem in found.problems:
        if not problem.samples:
            continue
        if problem.source in ("validation", "test"):
            found.unusable[problem.source] += problem.samples
            continue
        place = int.from_bytes(hashlib.blake2b(problem.place.encode(), digest_size=8).digest(), "big") / 2**64
        test, validation = fractions.test, fractions.test + fractions.validation
        found.unusable["test" if place < test else "validation" if place < validation else "train"] += problem.samples


def _read_other(reader: _Reader, name: str, source: Source, kind: Kind, *, found: Examination) -> None:
    report = reader.read(name, source, kind)
    part = Part(name=name, shards=report.shards, side=TEST)
    catalogue = collect([part], folder=reader.settings.cache / SHARDS, group_by="none")
    catalogue.side[:] = TEST
    if kind is Kind.RECOGNITION:
        clean(found, catalogue)
    found.others[name] = catalogue


def _judge(settings: Settings, found: Examination) -> None:
    found.errors = [problem for problem in found.problems if problem.fatal]
    unreadable = {problem.source for problem in found.errors}
    for side, part in ((TRAIN, "training"), (VALIDATION, "validation")):
        if not unreadable and not len(found.chosen(side)):
            found.errors.append(
                Problem(
                    kind="empty-set",
                    place="dataset",
                    what=f"no usable sample is left for {part}",
                    fatal=True,
                    samples=0,
                    hint="add data, or look at what was rejected",
                )
            )
    allowed = fraction(settings.dataset.max_rejected)
    if found.total and found.rejected > allowed * found.total:
        found.errors.append(
            Problem(
                kind="too-many-rejected",
                place="dataset.maxRejected",
                fatal=True,
                samples=0,
                what=f"{found.rejected} of {found.total} samples can't be used "
                f"({100 * found.rejected / found.total:.1f} %), and {settings.dataset.max_rejected} are allowed",
                hint="correct them, or raise dataset.maxRejected",
            )
        )
