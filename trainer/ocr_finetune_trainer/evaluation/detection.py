"""The one way from a page to its texts' outlines, and what a detector made of each page of a set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ocr_finetune_trainer.data.pictures import PictureError, decode
from ocr_finetune_trainer.evaluation.db_postprocess import DBPostProcess, Region
from ocr_finetune_trainer.evaluation.networks import as_network
from ocr_finetune_trainer.metrics.detection import DetectionCounts, match_page

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from ocr_finetune_trainer.evaluation.evaluate import Samples
    from ocr_finetune_trainer.geometry import DetectionGeometry

__all__ = ["IOUS", "DetectedPage", "DetectionMeasurement", "Detector", "counts_of", "measure_detection"]

IOUS = (0.5, 0.6, 0.7, 0.8)
_FIELDS = tuple(field.name for field in fields(DetectionCounts))


class Detector:
    """Finds texts on pages with a detection model.

    Args:
        model: A Paddle layer or a `Network`.
        geometry: How pages become its input.
        postprocess: From its maps to outlines; by default as `paddleocr`'s pipeline does.
    """

    def __init__(self, model: Any, *, geometry: DetectionGeometry, postprocess: DBPostProcess | None = None) -> None:
        self._network = as_network(model)
        self._geometry = geometry
        self._postprocess = postprocess or DBPostProcess()

    def maps(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The probability map of a page, float32 (H', W')."""
        resized = self._geometry.resize(image)
        x = self._geometry.normalization(resized.picture)[None]
        output: NDArray[np.float32] = np.ascontiguousarray(self._network.run(x)[0, 0])
        return output

    def detect(self, image: NDArray[np.uint8]) -> list[Region]:
        """Finds the texts of one page.

        Args:
            image: uint8 (H, W, 3), BGR.

        Returns:
            Regions in pixels of the page.

        Raises:
            ValueError: The page is empty or not uint8 with three channels.
        """
        return self._postprocess(self.maps(image), height=image.shape[0], width=image.shape[1])


@dataclass(frozen=True, kw_only=True)
class DetectedPage:
    """One page, and what the model found on it.

    Attributes:
        index: Position in its data set.
        truths: True outlines, each float32 (K, 2).
        ignored: For each, whether it is marked as unreadable.
        found: Found regions.
        source: Name of its source.
        width: Columns of the page.
        height: Rows of the page.
        problem: Why it could not be looked at; then nothing was found.
    """

    index: int
    truths: tuple[NDArray[np.float32], ...]
    ignored: tuple[bool, ...]
    found: tuple[Region, ...]
    source: str = ""
    width: int = 0
    height: int = 0
    problem: str = ""

    def counts(self, *, iou: float = 0.5) -> DetectionCounts:
        """What counts on this page."""
        return match_page(self.truths, self.ignored, [region.points for region in self.found], iou=iou).counts


def counts_of(pages: Iterable[DetectedPage], *, iou: float = 0.5) -> DetectionCounts:
    """What counts on some pages."""
    total = DetectionCounts()
    for page in pages:
        total += page.counts(iou=iou)
    return total


def _scores(counts: DetectionCounts) -> dict[str, float | int | None]:
    scores = counts.scores()
    return {
        "pages": counts.pages,
        "precision": scores.precision,
        "recall": scores.recall,
        "hmean": scores.hmean,
        "truths": counts.truths,
        "found": counts.found,
    }


@dataclass(frozen=True, kw_only=True)
class DetectionMeasurement:
    """What a detection model made of a set.

    Attributes:
        pages: Every page of the set, or of a rank's share of it, in the order of the set.
        unusable: Pages that preparation had to leave out of the set. Nothing is known of their texts.
    """

    pages: tuple[DetectedPage, ...]
    unusable: int = 0

    @cached_property
    def counts(self) -> DetectionCounts:
        """What counts at an IoU of 0.5."""
        return counts_of(self.pages)

    @property
    def sums(self) -> NDArray[np.float64]:
        """What ranks add up before they ask `scores_of`: float64 (K,)."""
        return np.asarray([getattr(self.counts, name) for name in _FIELDS], dtype=np.float64)

    @staticmethod
    def scores_of(sums: NDArray[np.float64]) -> dict[str, float | int | None]:
        """The figures under the manifest's names, from `sums` of one rank or of all added up."""
        return _scores(counts_from(sums))


def counts_from(sums: NDArray[np.float64]) -> DetectionCounts:
    """Counts from their values in the order of the fields."""
    values: Mapping[str, int] = {name: round(float(value)) for name, value in zip(_FIELDS, sums, strict=True)}
    return DetectionCounts(**values)


def sums_of(counts: DetectionCounts) -> NDArray[np.float64]:
    """Counts as values in the order of the fields."""
    return np.asarray([getattr(counts, name) for name in _FIELDS], dtype=np.float64)


def measure_detection(
    model: Any,
    dataset: Samples,
    *,
    geometry: DetectionGeometry,
    postprocess: DBPostProcess | None = None,
    indices: Sequence[int] | None = None,
    unusable: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> DetectionMeasurement:
    """Finds the texts of every page of a data set.

    Args:
        model: A Paddle layer or a `Network`.
        dataset: Pages with outlines.
        geometry: How pages become the model's input.
        postprocess: From maps to outlines.
        indices: Which pages; None for all. A rank gives its share, and the ranks' `sums` add up.
        unusable: Pages that preparation had to leave out of the set.
        progress: Called with pages done and pages in all.
    """
    detector = Detector(model, geometry=geometry, postprocess=postprocess)
    chosen = list(range(len(dataset))) if indices is None else [int(i) for i in indices]
    pages = []
    for index in chosen:
        pages.append(_page(detector, dataset, index))
        if progress is not None:
            progress(len(pages), len(chosen))
    return DetectionMeasurement(pages=tuple(sorted(pages, key=lambda page: page.index)), unusable=unusable)


def _page(detector: Detector, dataset: Samples, index: int) -> DetectedPage:
    sample = dataset[index]
    found: Sequence[Region] = ()
    problem = ""
    try:
        found = detector.detect(decode(sample.image))
    except PictureError as error:
        problem = str(error)
    return DetectedPage(
        index=index,
        truths=tuple(sample.polygons or ()),
        ignored=tuple(sample.ignored),
        found=tuple(found),
        source=dataset.source_names[sample.source],
        width=sample.width,
        height=sample.height,
        problem=problem,
    )
