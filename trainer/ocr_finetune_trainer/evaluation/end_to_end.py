"""Whole pages through the real `paddleocr.PaddleOCR`, with two models of one's own: what a user gets in the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ocr_finetune_api import run_config
from ocr_finetune_api.exit_codes import ConfigurationError, DataError, InputMissingError
from ocr_finetune_api.model_table import Kind, lookup
from ocr_finetune_api.workspace import Workspace
from ocr_finetune_trainer.data.pictures import PictureError, decode
from ocr_finetune_trainer.evaluation.statistics import Interval, bootstrap, paired_bootstrap
from ocr_finetune_trainer.evaluation.subjects import Subject, trained_of
from ocr_finetune_trainer.export.serving import ServedPipeline
from ocr_finetune_trainer.export.serving_pipeline import pipeline_config
from ocr_finetune_trainer.metrics.end_to_end import EndToEndCounts, Line, compare_page, half_width, matched_lines

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ocr_finetune_trainer.data.store import DataSet

__all__ = ["EndToEnd", "ReadPage", "find_run", "measure_end_to_end", "served_pair", "subject_of_run"]

_FIELDS = tuple(field.name for field in fields(EndToEndCounts))


@dataclass(frozen=True, kw_only=True)
class ReadPage:
    """One page, and what was read on it.

    Attributes:
        index: Position in its data set.
        true: Its true lines.
        found: The lines that were read.
        counts: What counts.
    """

    index: int
    true: tuple[Line, ...]
    found: tuple[Line, ...]
    counts: EndToEndCounts

    def right(self, *, iou: float) -> tuple[frozenset[int], frozenset[int]]:
        """Which true lines are read rightly, and which found lines these are."""
        pairs = [
            (true, found)
            for true, found in matched_lines(self.true, self.found, iou=iou).items()
            if not self.true[true].ignored and half_width(self.true[true].text) == half_width(self.found[found].text)
        ]
        return frozenset(true for true, _ in pairs), frozenset(found for _, found in pairs)

    def as_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "index": self.index,
            "hits": self.counts.hits,
            "found": [{"points": np.asarray(line.points).tolist(), "text": line.text} for line in self.found],
            "true": [{"points": np.asarray(line.points).tolist(), "text": line.text} for line in self.true],
        }


@dataclass(frozen=True, kw_only=True)
class EndToEnd:
    """What two models reach together.

    Attributes:
        pages: Every page.
        iou: From which overlap a line counted as found.
        detector: The detection model, in words.
        recogniser: The recognition model, in words.
    """

    pages: tuple[ReadPage, ...]
    iou: float
    detector: str
    recogniser: str

    @property
    def counts(self) -> EndToEndCounts:
        """What counts on all pages."""
        total = EndToEndCounts()
        for page in self.pages:
            total += page.counts
        return total

    @property
    def sums(self) -> NDArray[np.float64]:
        """What each page adds: float64 (pages, K)."""
        sums = np.asarray([[getattr(page.counts, name) for name in _FIELDS] for page in self.pages], dtype=np.float64)
        return sums.reshape(-1, len(_FIELDS))

    def interval(self) -> Interval:
        """The F-measure with its interval; pages are drawn."""
        return bootstrap(self.sums, _f_measure)

    def improvement(self, base: EndToEnd) -> Interval:
        """The F-measure less that of another pair of models on the same pages."""
        return paired_bootstrap(self.sums, base.sums, _f_measure)

    def regressions(self, base: EndToEnd) -> list[dict[str, int]]:
        """Pages on which fewer lines are right than with another pair of models; the worst first."""
        rows = [
            {"index": new.index, "hits": new.counts.hits, "hitsBefore": old.counts.hits}
            for new, old in zip(self.pages, base.pages, strict=True)
            if new.counts.hits < old.counts.hits
        ]
        return sorted(rows, key=lambda row: (row["hits"] - row["hitsBefore"], row["index"]))

    def as_dict(self, *, base: EndToEnd | None = None) -> dict[str, Any]:
        """The figures as JSON values.

        Args:
            base: The same pages with the base model in the new one's place; adds what it reached and what got worse.
        """
        counts = self.counts
        scores = counts.scores()
        figures = {
            "precision": scores.precision,
            "recall": scores.recall,
            "fMeasure": scores.f_measure,
            "fMeasureInterval": self.interval().as_dict(),
            "characterAccuracy": scores.character_accuracy,
            "hits": counts.hits,
            "found": counts.found,
            "true": counts.true,
            "pages": counts.pages,
            "iou": self.iou,
            "detector": self.detector,
            "recogniser": self.recogniser,
        }
        if base is not None:
            figures |= {
                "base": base.as_dict(),
                "improvement": self.improvement(base).as_dict(),
                "regressions": self.regressions(base),
            }
        return figures

    def summary(self) -> str:
        """One line for people."""
        counts, scores = self.counts, self.counts.scores()
        return (
            f"{counts.hits} hits of {counts.found} found and {counts.true} true lines: P {scores.precision:.2%}, "
            f"R {scores.recall:.2%}, F {scores.f_measure:.2%}, character accuracy {scores.character_accuracy:.2%}"
        )


def _f_measure(totals: NDArray[np.float64]) -> float:
    values = {name: round(float(value)) for name, value in zip(_FIELDS, totals, strict=True)}
    return EndToEndCounts(**values).scores().f_measure


def find_run(root: Path, name: str) -> Workspace:
    """A run of a workspace by its name, the newest if it was made several times.

    Raises:
        InputMissingError: There is none; the message names those there are.
    """
    folders: dict[str, list[Path]] = {}
    for path in root.glob("*/run.yaml"):
        folders.setdefault(path.parent.name.rpartition("-")[0], []).append(path.parent)
    if name not in folders:
        known = ", ".join(sorted(folders)) or "none"
        raise InputMissingError(
            f"evaluation.endToEnd.with.run: there is no run {name!r} in {root}; runs there: {known}",
            hint="train it in the same workspace first",
        )
    folder = max(folders[name], key=lambda item: (item / "run.yaml").stat().st_mtime)
    return Workspace(root, folder.name)


def subject_of_run(workspace: Workspace) -> Subject:
    """The best checkpoint of any run.

    Raises:
        InputMissingError: It has no checkpoint yet.
    """
    return trained_of(workspace, run_config.read(workspace.run_config).spec)


def served_pair(first: Subject, second: Subject, *, aside: Path) -> ServedPipeline:
    """Exports two models and starts `paddleocr.PaddleOCR` with them.

    Args:
        first: A detection or a recognition model.
        second: One of the other kind.
        aside: Where the exports go.

    Raises:
        ConfigurationError: They are not one of each.
    """
    by_kind = {subject.kind: subject for subject in (first, second)}
    if set(by_kind) != {Kind.DETECTION, Kind.RECOGNITION}:
        raise ConfigurationError(
            f"{first.model_name} and {second.model_name} do not read pages together",
            hint="give a detection model and a recognition model",
        )
    pair = {kind: _exported(subject, aside / kind.value) for kind, subject in by_kind.items()}
    config = pipeline_config(
        detection=pair[Kind.DETECTION],
        recognition=pair[Kind.RECOGNITION],
        postprocess=by_kind[Kind.DETECTION].postprocess,
    )
    return ServedPipeline(config, folder=aside)


def _exported(subject: Subject, folder: Path) -> tuple[str, Path]:
    from ocr_finetune_trainer.export.exporter import settings_for
    from ocr_finetune_trainer.export.paddle_format import save_paddle

    save_paddle(subject.layer, folder=folder, geometry=subject.geometry, config=settings_for(subject))
    return lookup(subject.model_name).serving_name, folder


def measure_end_to_end(
    pipeline: ServedPipeline,
    dataset: DataSet,
    *,
    iou: float,
    detector: str,
    recogniser: str,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> EndToEnd:
    """Reads every page of a set.

    Args:
        pipeline: `paddleocr.PaddleOCR`.
        dataset: Pages with outlines and texts.
        iou: From which overlap a line counts as found.
        detector: The detection model, in words.
        recogniser: The recognition model, in words.
        progress: Called with pages done and pages in all.

    Raises:
        DataError: The set has no page, or none of its pages has a text.
    """
    pages = []
    for index in range(len(dataset)):
        sample = dataset[index]
        true = tuple(
            Line(points=points, text=text, ignored=ignored)
            for points, text, ignored in zip(sample.polygons or (), sample.texts, sample.ignored, strict=True)
        )
        try:
            found: Sequence[Line] = pipeline.read(decode(sample.image))
        except PictureError:
            found = ()  # a page that can't be opened is one on which nothing is read
        counts = compare_page(true, found, iou=iou)
        pages.append(ReadPage(index=index, true=true, found=tuple(found), counts=counts))
        progress(len(pages), len(dataset))
    if not any(line.text for page in pages for line in page.true):
        raise DataError(
            "the pages of the end-to-end evaluation have no texts to compare with",
            hint="label what the boxes say, not only where they are",
        )
    return EndToEnd(pages=tuple(pages), iou=iou, detector=detector, recogniser=recogniser)
