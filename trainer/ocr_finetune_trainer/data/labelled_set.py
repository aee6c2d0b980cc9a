"""Reads one labelled collection by itself, without a run: pages to measure models on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ocr_finetune_api.exit_codes import DataError, InputMissingError
from ocr_finetune_api.model_table import Kind
from ocr_finetune_api.spec import SourceFormat
from ocr_finetune_trainer.data import formats
from ocr_finetune_trainer.data.catalogue import Part, collect
from ocr_finetune_trainer.data.ingest import ingest
from ocr_finetune_trainer.data.split import TEST
from ocr_finetune_trainer.data.store import DataSet, write_view

if TYPE_CHECKING:
    from pathlib import Path

    from ocr_finetune_api.spec import Source
    from ocr_finetune_trainer.data.records import Problem
    from ocr_finetune_trainer.data.sources import Opener

__all__ = ["LabelledPages", "read_pages"]

_SHOWN = 20


@dataclass(frozen=True, kw_only=True)
class LabelledPages:
    """Pages with outlines and texts.

    Attributes:
        dataset: The usable ones.
        problems: What is wrong with others, or with some of their boxes.
    """

    dataset: DataSet
    problems: tuple[Problem, ...]

    @property
    def unusable(self) -> int:
        """How many pages could not be used at all."""
        return sum(problem.samples for problem in self.problems)


def read_pages(source: Source, *, folder: Path, opener: Opener) -> LabelledPages:
    """Reads a collection of pages in any layout.

    Args:
        source: Where it lies, and how it is laid out.
        folder: Where the data set goes.
        opener: Opens the source.

    Raises:
        InputMissingError: There is no such collection.
        DataError: It can't be read, holds no page, or holds lines of text; all problems are listed.
    """
    opened = opener.open(source)
    request = formats.Request(
        files=opened.files,
        kind=Kind.DETECTION,
        list_file=opened.list_file,
        columns=source.columns,
        include_unconfirmed=source.include_unconfirmed,
        prefix=(source.path_prefix.from_, source.path_prefix.to) if source.path_prefix else None,
    )
    layout = source.format if source.format is not SourceFormat.AUTO else formats.recognise(request).format
    shards = folder / "shards"
    shards.mkdir(parents=True)
    result = ingest(opened.files, formats.layout(layout).read(request), folder=shards, crop=False)
    fatal = [problem for problem in result.problems if problem.fatal]
    if fatal:
        kind = InputMissingError if all(problem.missing for problem in fatal) else DataError
        raise kind(*map(str, fatal[:_SHOWN]))
    name = source.uri
    catalogue = collect([Part(name=name, shards=result.shards, side=TEST)], folder=shards, group_by="none")
    if not len(catalogue.boxes) or (catalogue.boxes < 0).any():
        what = "holds pictures of text lines" if len(catalogue.boxes) else "holds no usable page"
        raise DataError(f"{name}: {what}, and pages with boxes are needed", *map(str, result.problems[:_SHOWN]))
    write_view(
        folder / "pages",
        cache=shards,
        shards=catalogue.shards,
        sources=catalogue.sources,
        rows=catalogue.rows(np.arange(len(catalogue.boxes))),
    )
    return LabelledPages(dataset=DataSet.open(folder / "pages"), problems=tuple(result.problems))
