"""Reads whole pages: finds the texts, cuts them out, reads them; or one half of that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ocr_finetune_api.exit_codes import ConfigurationError
from ocr_finetune_api.model_table import Kind
from ocr_finetune_trainer.data.crops import cut
from ocr_finetune_trainer.evaluation.detection import Detector
from ocr_finetune_trainer.evaluation.reader import Recogniser
from ocr_finetune_trainer.geometry import DetectionGeometry, RecognitionGeometry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ocr_finetune_trainer.evaluation.db_postprocess import Region
    from ocr_finetune_trainer.evaluation.opening import OpenModel

__all__ = ["Pipeline", "Read", "reading_order"]

# Texts whose tops differ by less stand in one line (`paddleocr`'s figure).
_SAME_LINE = 10


@dataclass(frozen=True, kw_only=True)
class Read:
    """One text of a picture.

    Attributes:
        text: What it says; None if only its place was asked for.
        score: Confidence in the text.
        points: Its outline, (K, 2), in pixels; None if the picture is one text.
        found_score: Confidence in the outline.
    """

    text: str | None = None
    score: float | None = None
    points: NDArray[np.int32] | None = None
    found_score: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """As JSON values; what was not asked for is left out."""
        values: dict[str, Any] = {}
        if self.text is not None:
            values |= {"text": self.text, "score": round(float(self.score or 0.0), 4)}
        if self.points is not None:
            values |= {"points": self.points.tolist(), "foundScore": round(float(self.found_score or 0.0), 4)}
        return values


class Pipeline:
    """One model, or a detector and a recogniser together.

    Args:
        models: One or two open models.
        batch_size: Crops in a batch.

    Raises:
        ConfigurationError: They do not go together.
    """

    def __init__(self, models: Sequence[OpenModel], *, batch_size: int = 32) -> None:
        kinds = [model.kind for model in models]
        if len(set(kinds)) != len(kinds) or not set(kinds) <= {Kind.DETECTION, Kind.RECOGNITION}:
            named = ", ".join(f"{model.origin} ({model.kind.value})" for model in models)
            raise ConfigurationError(f"give a detection model, a recognition model, or one of each, not {named}")
        self._detector: Detector | None = None
        self._recogniser: Recogniser | None = None
        for model in models:
            if isinstance(model.geometry, DetectionGeometry):
                self._detector = Detector(model.network, geometry=model.geometry, postprocess=model.postprocess)
            elif isinstance(model.geometry, RecognitionGeometry) and model.dictionary is not None:
                self._recogniser = Recogniser(
                    model.network, geometry=model.geometry, dictionary=model.dictionary, batch_size=batch_size
                )

    @property
    def detects(self) -> bool:
        """Whether it finds texts on pages."""
        return self._detector is not None

    def read(self, pictures: Sequence[NDArray[np.uint8]]) -> list[list[Read]]:
        """Reads pictures, uint8 (H, W, 3) BGR: for each its texts in reading order."""
        if self._detector is None:
            assert self._recogniser is not None
            return [[Read(text=text, score=score)] for text, score in self._recogniser.read(pictures)]
        found = [reading_order(self._detector.detect(picture)) for picture in pictures]
        if self._recogniser is None:
            return [[Read(points=region.points, found_score=region.score) for region in regions] for regions in found]
        return self._read_regions(pictures, found)

    def _read_regions(
        self, pictures: Sequence[NDArray[np.uint8]], found: Sequence[Sequence[Region]]
    ) -> list[list[Read]]:
        assert self._recogniser is not None
        places: list[tuple[int, Region]] = []
        crops = []
        for number, (picture, regions) in enumerate(zip(pictures, found, strict=True)):
            for region in regions:
                crop = cut(picture, region.points)
                if crop is not None:
                    places.append((number, region))
                    crops.append(crop)
        results: list[list[Read]] = [[] for _ in pictures]
        for (number, region), (text, score) in zip(places, self._recogniser.read(crops), strict=True):
            results[number].append(Read(text=text, score=score, points=region.points, found_score=region.score))
        return results


def reading_order(regions: Sequence[Region]) -> list[Region]:
    """Regions from top to bottom, and from left to right where their tops are about equal."""
    ordered = sorted(regions, key=lambda region: (int(region.points[0][1]), int(region.points[0][0])))
    lines: list[list[Region]] = []
    for region in ordered:
        if lines and abs(int(region.points[0][1]) - int(lines[-1][-1].points[0][1])) < _SAME_LINE:
            lines[-1].append(region)
        else:
            lines.append([region])
    return [region for line in lines for region in sorted(line, key=lambda item: int(item.points[0][0]))]
