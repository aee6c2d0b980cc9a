"""The evaluation of a table model."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ocr_finetune_trainer.evaluation.bad_cases import FOLDER, write_bad_tables
from ocr_finetune_trainer.evaluation.report.table import drawn, table_report
from ocr_finetune_trainer.evaluation.sample_run import SampleRun
from ocr_finetune_trainer.evaluation.tables import ReadTable, TableMeasurement, measure_tables
from ocr_finetune_trainer.table_geometry import TableGeometry

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from ocr_finetune_trainer.data.store import DataSet
    from ocr_finetune_trainer.evaluation.subjects import Subject

__all__ = ["TableRun"]

WORST = 30
BAD_CASES = 200


class TableRun(SampleRun):
    """Reads the tables of the test set and the guard sets with both models."""

    figures = ("structureAccuracy", "teds", "tedsWithText", "cellHmean")

    def measurement(
        self, subject: Subject, dataset: DataSet, *, unusable: int, progress: Callable[[int, int], None]
    ) -> TableMeasurement:
        """What one model reads."""
        if not isinstance(subject.geometry, TableGeometry):
            raise TypeError(f"{subject.model_name} is no table model")
        return measure_tables(
            subject.layer,
            dataset,
            geometry=subject.geometry,
            unusable=unusable,
            processes=len(os.sched_getaffinity(0)),
            progress=progress,
        )

    @property
    def _best(self) -> TableMeasurement:
        best = self.evaluation.best
        assert isinstance(best, TableMeasurement)
        return best

    def worst(self) -> list[ReadTable]:
        """The tables that are wrong, the worst first."""
        return sorted((t for t in self._best.tables if not t.right), key=lambda t: (t.teds_structure, t.index))

    def predictions(self) -> list[dict[str, Any]]:
        """What was read."""
        return [
            {
                "index": table.index,
                "source": table.source,
                "right": table.right,
                "teds": round(table.teds_structure, 4),
                "tedsWithText": round(table.teds, 4),
                "structure": "".join(table.structure),
                "read": "".join(table.predicted),
                "boxes": [] if table.read is None else table.read.boxes.round(1).tolist(),
                **({"problem": table.problem} if table.problem else {}),
            }
            for table in self._best.tables
        ]

    def write(self) -> None:
        """Writes the report, the figures, what was read, and the worst tables to be labelled again."""
        super().write()

        def draw(table: ReadTable) -> NDArray[np.uint8] | None:
            image = self.picture(table.index)
            return None if image is None else drawn(table, image)

        write_bad_tables(self.workspace.evaluation / FOLDER, self.worst()[:BAD_CASES], dataset=self.dataset, drawn=draw)

    def report(self) -> str:
        """The report as HTML."""
        worst = self.worst()
        return table_report(
            self.evaluation.document,
            worst=worst[:WORST],
            wrong=len(worst),
            worse=[table for table in worst if table.index in set(self.evaluation.lost)][:WORST],
            picture_of=self.picture,
            origin_of=self.dataset.origin,
            title=f"Evaluation of {self.context.config.run.name}",
            facts=self.facts,
            verdict=self.verdict_document(),
            sections=self.sections(),
        )
