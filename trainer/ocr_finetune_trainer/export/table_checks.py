"""The checks of an exported table model: every table's structure and boxes are compared with the trained model's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ocr_finetune_trainer.data.pictures import PictureError, decode
from ocr_finetune_trainer.evaluation.table_decode import DecodedTable
from ocr_finetune_trainer.evaluation.tables import ReadTable, TableMeasurement, measure_tables, measurement_of, table_of
from ocr_finetune_trainer.export.checks import Measured, Stopwatch
from ocr_finetune_trainer.export.serving import ServedTableReader
from ocr_finetune_trainer.table_geometry import TableGeometry

if TYPE_CHECKING:
    from ocr_finetune_trainer.evaluation.held_out import HeldOutSet
    from ocr_finetune_trainer.evaluation.networks import Network
    from ocr_finetune_trainer.evaluation.subjects import Subject

__all__ = ["TableChecker", "same_tables"]

# `paddleocr` cuts coordinates to whole pixels, and rounding in the decoder moves a box by less than this.
PIXELS = 3.0


class TableChecker:
    """Reads the tables of the test set with each format.

    Args:
        subject: The trained model.
        measured_on: The test set.
        serving_name: The name it is served under.
    """

    metric = "structureAccuracy"

    def __init__(self, subject: Subject, *, measured_on: HeldOutSet, serving_name: str) -> None:
        if not isinstance(subject.geometry, TableGeometry):
            raise TypeError(f"{subject.model_name} is no table model")
        self._subject = subject
        self._geometry = subject.geometry
        self._set = measured_on
        self._serving_name = serving_name

    def same(self, first: Any, second: Any) -> bool:
        """Whether two results are the same but for rounding."""
        return same_tables(first, second)

    def reference(self) -> Measured:
        """The trained model itself."""
        return self.network(self._subject.layer)

    def network(self, network: Network | Any) -> Measured:
        """A format that runs in a network of ours, or a layer. One table at a time, as serving reads them."""
        with Stopwatch() as watch:
            measurement = measure_tables(network, self._set.dataset, geometry=self._geometry, batch_size=1)
        return _measured(measurement, watch.seconds)

    def served(self, folder: Path) -> Measured:
        """The folder in `paddleocr.TableStructureRecognition`."""
        reader = ServedTableReader(folder, serving_name=self._serving_name)
        dataset = self._set.dataset
        tables: list[ReadTable] = []
        with Stopwatch() as watch:
            for index in range(len(dataset)):
                sample = dataset[index]
                try:
                    read, problem = reader.read(decode(sample.image)), ""
                except PictureError as error:
                    read, problem = None, str(error)
                tables.append(table_of(dataset, index, sample, read=read, problem=problem))
        return _measured(measurement_of(tables), watch.seconds)


def _measured(measurement: TableMeasurement, seconds: float) -> Measured:
    return Measured(
        metrics=TableMeasurement.scores_of(measurement.sums),
        outputs=[table.read for table in measurement.tables],
        seconds=max(seconds, 1e-9),
    )


def same_tables(first: DecodedTable | None, second: DecodedTable | None) -> bool:
    """Whether two tables have the same tokens, and cells whose rectangles are at most `PIXELS` apart."""
    if first is None or second is None:
        return first is second
    if first.structure != second.structure or len(first.boxes) != len(second.boxes):
        return False
    if not len(first.boxes):
        return True
    return bool(np.abs(_rectangles(first.boxes) - _rectangles(second.boxes)).max() <= PIXELS)


def _rectangles(boxes: Any) -> Any:
    """Left, top, right, bottom of boxes of 4 or 8 numbers; the order of the corners doesn't matter."""
    x, y = boxes[:, 0::2], boxes[:, 1::2]
    return np.stack([x.min(axis=1), y.min(axis=1), x.max(axis=1), y.max(axis=1)], axis=1)
