"""The checks of an exported detection model: the regions of every page are compared with the trained model's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ocr_finetune_trainer.data.pictures import PictureError, decode
from ocr_finetune_trainer.evaluation.db_postprocess import Region
from ocr_finetune_trainer.evaluation.detection import DetectedPage, DetectionMeasurement, measure_detection
from ocr_finetune_trainer.export.checks import Measured, Stopwatch
from ocr_finetune_trainer.export.serving import ServedDetector
from ocr_finetune_trainer.geometry import DetectionGeometry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ocr_finetune_trainer.evaluation.held_out import HeldOutSet
    from ocr_finetune_trainer.evaluation.networks import Network
    from ocr_finetune_trainer.evaluation.subjects import Subject

__all__ = ["DetectionChecker", "same_regions"]

# Rounding moves a contour by a pixel of the map, which is less than this on the page.
PIXELS = 3.0


class DetectionChecker:
    """Finds the texts of the test set with each format.

    Args:
        subject: The trained model.
        measured_on: The test set.
        serving_name: The name it is served under.
    """

    metric = "hmean"

    def __init__(self, subject: Subject, *, measured_on: HeldOutSet, serving_name: str) -> None:
        if not isinstance(subject.geometry, DetectionGeometry):
            raise TypeError(f"{subject.model_name} is no detection model")
        self._subject = subject
        self._geometry = subject.geometry
        self._set = measured_on
        self._serving_name = serving_name

    def same(self, first: Any, second: Any) -> bool:
        """Whether two results are the same but for rounding."""
        return same_regions(first, second)

    def reference(self) -> Measured:
        """The trained model itself."""
        return self.network(self._subject.layer)

    def network(self, network: Network | Any) -> Measured:
        """A format that runs in a network of ours, or a layer."""
        with Stopwatch() as watch:
            measurement = measure_detection(
                network, self._set.dataset, geometry=self._geometry, postprocess=self._subject.postprocess
            )
        return _measured(measurement, watch.seconds)

    def served(self, folder: Path) -> Measured:
        """The folder in `paddleocr.TextDetection`, under the size rule of `paddleocr`'s pipeline."""
        detector = ServedDetector(folder, serving_name=self._serving_name)
        dataset = self._set.dataset
        pages = []
        with Stopwatch() as watch:
            for index in range(len(dataset)):
                sample = dataset[index]
                try:
                    regions = detector.detect(decode(sample.image))
                except PictureError:
                    regions = []
                found = tuple(Region(points=points.astype(np.int32), score=score) for points, score in regions)
                pages.append(
                    DetectedPage(
                        index=index,
                        truths=tuple(sample.polygons or ()),
                        ignored=tuple(sample.ignored),
                        found=found,
                    )
                )
        return _measured(DetectionMeasurement(pages=tuple(pages)), watch.seconds)


def _measured(measurement: DetectionMeasurement, seconds: float) -> Measured:
    outputs = [[region.points for region in page.found] for page in measurement.pages]
    return Measured(
        metrics=DetectionMeasurement.scores_of(measurement.sums), outputs=outputs, seconds=max(seconds, 1e-9)
    )


def same_regions(first: Sequence[Any], second: Sequence[Any]) -> bool:
    """Whether two pages have the same regions in any order, corners at most `PIXELS` apart."""
    if len(first) != len(second):
        return False
    left = list(second)
    for points in first:
        match = next((i for i, other in enumerate(left) if _close(points, other)), None)
        if match is None:
            return False
        left.pop(match)
    return True


def _close(first: Any, second: Any) -> bool:
    return np.shape(first) == np.shape(second) and bool(
        np.abs(np.asarray(first, np.float32) - np.asarray(second, np.float32)).max() <= PIXELS
    )
