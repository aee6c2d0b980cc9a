"""The evaluation of a text-line orientation classifier."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ocr_finetune_trainer.data.orientation_samples import turn
from ocr_finetune_trainer.evaluation.orientation import JudgedLine, OrientationMeasurement, measure_orientation
from ocr_finetune_trainer.evaluation.report.page import picture, render
from ocr_finetune_trainer.evaluation.report.samples import HEAD, rows_of
from ocr_finetune_trainer.evaluation.sample_run import SampleRun
from ocr_finetune_trainer.orientation_geometry import OrientationGeometry

if TYPE_CHECKING:
    from collections.abc import Callable

    from ocr_finetune_trainer.data.store import DataSet
    from ocr_finetune_trainer.evaluation.subjects import Subject

__all__ = ["OrientationRun"]

WORST = 60
_LABELS = {"accuracy": "right", "accuracyUpright": "upright lines right", "accuracyTurned": "turned lines right"}
_TEMPLATE = (
    HEAD
    + """
<h2>Lines that were taken wrongly</h2>
<p>{{ wrong }} of the lines shown, each upright and upside down{% if worst|length < wrong %}; the surest
{{ worst|length }}{% endif %}.</p>
{% for item in worst %}<div class="card">{{ item.image }}<div>{{ item.says }}</div>
<div class="note">{{ item.origin }} {{ item.problem }}</div></div>{% endfor %}
"""
)


class OrientationRun(SampleRun):
    """Shows the lines of the test set and the guard sets to both models, both ways."""

    figures = ("accuracy",)

    def measurement(
        self, subject: Subject, dataset: DataSet, *, unusable: int, progress: Callable[[int, int], None]
    ) -> OrientationMeasurement:
        """What one model says."""
        if not isinstance(subject.geometry, OrientationGeometry):
            raise TypeError(f"{subject.model_name} is no orientation model")
        return measure_orientation(
            subject.layer, dataset, geometry=subject.geometry, unusable=unusable, progress=progress
        )

    @property
    def _lines(self) -> tuple[JudgedLine, ...]:
        best = self.evaluation.best
        assert isinstance(best, OrientationMeasurement)
        return best.lines

    def predictions(self) -> list[dict[str, Any]]:
        """What was said to each line."""
        return [
            {
                "index": line.index,
                "source": line.source,
                "turned": line.turned,
                "probability": round(line.probability, 4),
                "right": line.right,
                **({"problem": line.problem} if line.problem else {}),
            }
            for line in self._lines
        ]

    def report(self) -> str:
        """The report as HTML."""
        wrong = sorted((line for line in self._lines if not line.right), key=lambda line: -abs(line.probability - 0.5))
        return render(
            _TEMPLATE,
            title=f"Evaluation of {self.context.config.run.name}",
            facts=self.facts,
            verdict=self.verdict_document(),
            document=self.evaluation.document,
            main="accuracy",
            sections=self.sections(),
            rows=rows_of(self.evaluation.document, _LABELS),
            wrong=len(wrong),
            worst=[self._card(line) for line in wrong[:WORST]],
        )

    def _card(self, line: JudgedLine) -> dict[str, Any]:
        image = self.picture(line.index)
        shown = None if image is None else (turn(image) if line.turned else image)
        return {
            "image": "" if shown is None else picture(shown, height=80, width=320),
            "says": f"turned with probability {line.probability:.2f}; it is {'' if line.turned else 'not '}turned",
            "origin": self.dataset.origin(line.index),
            "problem": line.problem,
        }
