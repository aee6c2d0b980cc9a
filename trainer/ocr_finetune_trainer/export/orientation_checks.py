"""The checks of an exported orientation classifier: what it says to every line, both ways."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocr_finetune_trainer.evaluation.orientation import OrientationMeasurement, measure_orientation, show_lines
from ocr_finetune_trainer.export.checks import Measured, Stopwatch
from ocr_finetune_trainer.export.serving import ServedOrientation
from ocr_finetune_trainer.orientation_geometry import OrientationGeometry

if TYPE_CHECKING:
    from ocr_finetune_trainer.evaluation.held_out import HeldOutSet
    from ocr_finetune_trainer.evaluation.networks import Network
    from ocr_finetune_trainer.evaluation.subjects import Subject

__all__ = ["OrientationChecker"]

_PROBABILITY = 0.01


class OrientationChecker:
    """Shows the lines of the test set to each format.

    Args:
        subject: The trained model.
        measured_on: The test set.
        serving_name: The name it is served under.
    """

    metric = "accuracy"

    def __init__(self, subject: Subject, *, measured_on: HeldOutSet, serving_name: str) -> None:
        if not isinstance(subject.geometry, OrientationGeometry):
            raise TypeError(f"{subject.model_name} is no orientation model")
        self._subject = subject
        self._geometry = subject.geometry
        self._set = measured_on
        self._serving_name = serving_name

    def same(self, first: Any, second: Any) -> bool:
        """Whether two probabilities are the same but for rounding."""
        return bool(abs(first - second) <= _PROBABILITY)

    def reference(self) -> Measured:
        """The trained model itself."""
        return self.network(self._subject.layer)

    def network(self, network: Network | Any) -> Measured:
        """A format that runs in a network of ours, or a layer."""
        with Stopwatch() as watch:
            measurement = measure_orientation(network, self._set.dataset, geometry=self._geometry)
        return _measured(measurement, watch.seconds)

    def served(self, folder: Path) -> Measured:
        """The folder in `paddleocr.TextLineOrientationClassification`."""
        served = ServedOrientation(folder, serving_name=self._serving_name)
        with Stopwatch() as watch:
            measurement = show_lines(served.turned, self._set.dataset)
        return _measured(measurement, watch.seconds)


def _measured(measurement: OrientationMeasurement, seconds: float) -> Measured:
    return Measured(
        metrics=OrientationMeasurement.scores_of(measurement.sums),
        outputs=[line.probability for line in measurement.lines],
        seconds=max(seconds, 1e-9),
    )
