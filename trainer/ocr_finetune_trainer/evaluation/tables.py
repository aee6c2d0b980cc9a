"""The one way from a picture to a table, and what a model made of each table of a set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ocr_finetune_trainer.data.pictures import PictureError, decode
from ocr_finetune_trainer.data.table_labels import merge_cells, split_structure, split_text
from ocr_finetune_trainer.evaluation.networks import as_network
from ocr_finetune_trainer.evaluation.sample_evaluation import OneSample
from ocr_finetune_trainer.evaluation.table_decode import DecodedTable, to_html
from ocr_finetune_trainer.evaluation.table_decode import decode as decode_output
from ocr_finetune_trainer.metrics.detection import DetectionCounts
from ocr_finetune_trainer.metrics.table import (
    TableCounts,
    box_counts,
    box_polygon,
    plain_text,
    same_structure,
    teds_of_many,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ocr_finetune_trainer.evaluation.evaluate import Samples
    from ocr_finetune_trainer.table_geometry import TableGeometry

__all__ = ["ReadTable", "TableMeasurement", "TableReader", "measure_tables"]

_BOX_FIELDS = tuple(field.name for field in fields(DetectionCounts))
_OWN_FIELDS = ("tables", "right", "right_without_sections", "teds_sum", "teds_structure_sum")


class TableReader:
    """Reads the structure of tables.

    Args:
        model: A Paddle layer or a `Network`.
        geometry: How pictures become its input, and which tokens it knows.
        batch_size: Pictures in a batch. A batch is decoded until its longest table ends.
    """

    def __init__(self, model: Any, *, geometry: TableGeometry, batch_size: int = 8) -> None:
        self._network = as_network(model)
        self._geometry = geometry
        self._vocabulary = geometry.vocabulary
        self._batch_size = batch_size

    def read(self, images: Sequence[NDArray[np.uint8]]) -> list[DecodedTable]:
        """Reads tables, uint8 (h, w, 3) BGR each; boxes are in pixels of the picture."""
        tables: list[DecodedTable] = []
        for start in range(0, len(images), self._batch_size):
            part = images[start : start + self._batch_size]
            boxes, probabilities = self._network.run_all(self._geometry.batch(part))[:2]
            for row, image in enumerate(part):
                numbers = boxes[row]
                if numbers.shape[1] == 8 and self._geometry.box_numbers == 4:
                    numbers = numbers[:, [0, 1, 4, 5]]  # an export says a box by its corners
                frame = self._geometry.frame(height=image.shape[0], width=image.shape[1])
                tables.append(decode_output(probabilities[row], numbers, self._vocabulary, frame=frame))
        return tables


@dataclass(frozen=True, kw_only=True)
class ReadTable:
    """One table, and what the model read.

    Attributes:
        index: Position in its data set.
        structure: True tokens, cells merged.
        boxes: True outlines of the cells, in reading order, None where unknown.
        texts: What the cells say, as HTML.
        read: What was read; None if the picture could not be looked at.
        source: Name of its source.
        problem: Why it could not be looked at.
        teds: Similarity with the true texts in the found cells.
        teds_structure: Similarity of the structure.
    """

    index: int
    structure: tuple[str, ...]
    boxes: tuple[NDArray[np.float32] | None, ...]
    texts: tuple[str, ...]
    read: DecodedTable | None
    source: str = ""
    problem: str = ""
    teds: float = 0.0
    teds_structure: float = 0.0

    @property
    def predicted(self) -> tuple[str, ...]:
        """The tokens that were read."""
        return () if self.read is None else self.read.structure

    @property
    def right(self) -> bool:
        """Whether the structure is exactly right."""
        return self.read is not None and same_structure(self.predicted, self.structure)

    @property
    def true_html(self) -> str:
        """The true table with its texts."""
        return to_html(self.structure, self.texts)

    @property
    def read_html(self) -> str:
        """The read table; each cell holds the true text that lies most in it, as a perfect reader would put it."""
        return to_html(self.predicted, self._placed())

    def _placed(self) -> list[str]:
        if self.read is None or not len(self.read.boxes):
            return []
        known = [number for number, box in enumerate(self.boxes) if box is not None]
        placed = [""] * len(self.read.boxes)
        if not known:
            return placed
        truths = np.stack([_rectangle(self.boxes[number]) for number in known])
        found = np.stack([_rectangle(box_polygon(box)) for box in self.read.boxes])
        low = np.maximum(truths[:, None, :2], found[None, :, :2])
        high = np.minimum(truths[:, None, 2:], found[None, :, 2:])
        shared = (high - low).clip(0.0).prod(axis=2)
        for row, number in enumerate(known):
            if shared[row].max() > 0.0:
                placed[int(shared[row].argmax())] += self.texts[number]
        return placed

    def counts(self) -> TableCounts:
        """What counts of this table."""
        true = [box.ravel().tolist() for box in self.boxes if box is not None]
        found = [] if self.read is None else self.read.boxes.tolist()
        # Empty cells have no true box, and the model is not taught one: what it says there is no find.
        if self.read is not None and self.right:
            found = [box for box, truth in zip(found, self.boxes, strict=True) if truth is not None]
        return TableCounts(
            tables=1,
            right=int(self.right),
            right_without_sections=int(same_structure(self.predicted, self.structure, without_sections=True)),
            teds_sum=self.teds,
            teds_structure_sum=self.teds_structure,
            boxes=box_counts(found, true) if true else DetectionCounts(),
        )


def _rectangle(outline: Any) -> NDArray[np.float64]:
    """Left, top, right, bottom around an outline (K, 2)."""
    points = np.asarray(outline, dtype=np.float64)
    return np.concatenate([points.min(axis=0), points.max(axis=0)])


@dataclass(frozen=True, kw_only=True)
class TableMeasurement:
    """What a table model made of a set.

    Attributes:
        tables: Every table of the set, or of a rank's share of it, in the order of the set.
        unusable: Tables that preparation had to leave out of the set; they count as wrong.
    """

    tables: tuple[ReadTable, ...]
    unusable: int = 0

    @cached_property
    def counts(self) -> TableCounts:
        """What counts."""
        return sum((table.counts() for table in self.tables), TableCounts(tables=self.unusable))

    @property
    def sums(self) -> NDArray[np.float64]:
        """What ranks add up before they ask `scores_of`: float64 (K,)."""
        counts = self.counts
        own = [float(getattr(counts, name)) for name in _OWN_FIELDS]
        return np.asarray([*own, *(getattr(counts.boxes, name) for name in _BOX_FIELDS)], dtype=np.float64)

    def each(self) -> list[OneSample]:
        """Every table with what it adds to the sums."""
        return [
            OneSample(
                index=table.index,
                source=table.source,
                right=table.right,
                sums=TableMeasurement(tables=(table,)).sums,
            )
            for table in self.tables
        ]

    @staticmethod
    def scores_of(sums: NDArray[np.float64]) -> dict[str, float | int | None]:
        """The figures under the manifest's names, from `sums` of one rank or of all added up."""
        values = dict(zip((*_OWN_FIELDS, *_BOX_FIELDS), (float(v) for v in sums), strict=True))
        boxes = DetectionCounts(**{name: round(values[name]) for name in _BOX_FIELDS})
        scores = TableCounts(
            tables=round(values["tables"]),
            right=round(values["right"]),
            right_without_sections=round(values["right_without_sections"]),
            teds_sum=values["teds_sum"],
            teds_structure_sum=values["teds_structure_sum"],
            boxes=boxes,
        ).scores()
        return {
            "samples": round(values["tables"]),
            "structureAccuracy": scores.structure_accuracy,
            "structureAccuracyWithoutSections": scores.structure_accuracy_without_sections,
            "teds": scores.teds_structure,
            "tedsWithText": scores.teds,
            "cellHmean": scores.boxes.hmean,
        }


def measure_tables(
    model: Any,
    dataset: Samples,
    *,
    geometry: TableGeometry,
    indices: Sequence[int] | None = None,
    batch_size: int = 8,
    unusable: int = 0,
    processes: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> TableMeasurement:
    """Reads every table of a data set.

    Args:
        model: A Paddle layer or a `Network`.
        dataset: Labelled tables.
        geometry: How pictures become the model's input, and which tokens it knows.
        indices: Which tables; None for all. A rank gives its share, and the ranks' `sums` add up.
        batch_size: Tables in a batch.
        unusable: Tables that preparation had to leave out of the set; they count as wrong.
        processes: How many may compute similarities at once.
        progress: Called with tables done and tables in all.
    """
    reader = TableReader(model, geometry=geometry, batch_size=batch_size)
    chosen = list(range(len(dataset))) if indices is None else [int(i) for i in indices]
    tables: list[ReadTable] = []
    for start in range(0, len(chosen), batch_size):
        tables += _read(reader, dataset, chosen[start : start + batch_size])
        if progress is not None:
            progress(len(tables), len(chosen))
    return measurement_of(tables, unusable=unusable, processes=processes)


def measurement_of(tables: Sequence[ReadTable], *, unusable: int = 0, processes: int = 1) -> TableMeasurement:
    """Scores tables that have been read, in the order of their numbers."""
    ordered = sorted(tables, key=lambda table: table.index)
    pairs = [(table.read_html, table.true_html) for table in ordered]
    with_text = teds_of_many(pairs, processes=processes)
    structure = teds_of_many(pairs, structure_only=True, processes=processes)
    scored = [
        ReadTable(
            **{field.name: getattr(table, field.name) for field in fields(ReadTable)[:-2]},
            teds=float(text_score),
            teds_structure=float(structure_score),
        )
        for table, text_score, structure_score in zip(ordered, with_text, structure, strict=True)
    ]
    return TableMeasurement(tables=tuple(scored), unusable=unusable)


def _read(reader: TableReader, dataset: Samples, indices: Sequence[int]) -> list[ReadTable]:
    samples = [dataset[index] for index in indices]
    pictures: list[NDArray[np.uint8]] = []
    problems: dict[int, str] = {}
    for index, sample in zip(indices, samples, strict=True):
        try:
            pictures.append(decode(sample.image))
        except PictureError as error:
            problems[index] = str(error)
    read = iter(reader.read(pictures))
    return [
        table_of(
            dataset,
            index,
            sample,
            read=None if index in problems else next(read),
            problem=problems.get(index, ""),
        )
        for index, sample in zip(indices, samples, strict=True)
    ]


def table_of(dataset: Samples, index: int, sample: Any, *, read: DecodedTable | None, problem: str = "") -> ReadTable:
    """Puts a sample beside what was read, not yet scored."""
    return ReadTable(
        index=index,
        structure=merge_cells(split_structure(sample.text)),
        boxes=tuple(
            None if ignored else outline for outline, ignored in zip(sample.polygons or (), sample.ignored, strict=True)
        ),
        texts=tuple(plain_text(split_text(text)) for text in sample.texts),
        read=read,
        source=dataset.source_names[sample.source],
        problem=problem,
    )
