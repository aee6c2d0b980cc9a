"""What a model made of each sample: metrics, reports, the gate and the export's checks are all made from this list."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from ocr_finetune_trainer.metrics.recognition import RecognitionMetric, text_distance

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

__all__ = ["Looks", "ReadSample", "RecognitionMeasurement", "looks_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Looks:
    """What of a picture makes it hard to read.

    Attributes:
        height: Rows in pixels.
        width: Columns in pixels.
        contrast: Distance of the 5th and 95th percentile of brightness, 0-255.
        sharpness: Variance of the Laplacian at 32 rows, which is low in blurred pictures.
    """

    height: int
    width: int
    contrast: float
    sharpness: float


def looks_of(picture: NDArray[np.uint8]) -> Looks:
    """Looks at a picture, uint8 (h, w, 3)."""
    height, width = picture.shape[:2]
    grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    low, high = np.percentile(grey[:: max(1, height // 64), :: max(1, width // 256)], (5, 95))
    columns = min(max(1, round(width * 32 / height)), 1024)
    scaled = cv2.resize(grey, (columns, 32), interpolation=cv2.INTER_AREA)
    return Looks(
        height=height,
        width=width,
        contrast=float(high - low),
        sharpness=float(cv2.Laplacian(scaled, cv2.CV_32F).var()),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadSample:
    """One sample, and what the model read.

    Attributes:
        index: Position in its data set.
        label: What is there, raw.
        prediction: What the model read.
        score: The model's confidence, 0 to 1.
        source: Name of its source.
        looks: What makes it hard; None where nobody looked, or there is no usable picture.
        problem: Why it could not be read at all; such a sample counts as wrong.
    """

    index: int
    label: str
    prediction: str
    score: float
    source: str = ""
    looks: Looks | None = None
    problem: str = ""

    @property
    def correct(self) -> bool:
        """Whether every character is right."""
        return not self.problem and self.prediction == self.label

    @property
    def distance(self) -> int:
        """Levenshtein distance between prediction and label."""
        return text_distance(self.prediction, self.label)

    def to_json(self) -> dict[str, Any]:
        """The sample as JSON values."""
        values: dict[str, Any] = {
            "index": self.index,
            "label": self.label,
            "prediction": self.prediction,
            "score": round(self.score, 4),
            "source": self.source,
        }
        return values | ({"problem": self.problem} if self.problem else {})


@dataclass(frozen=True, kw_only=True)
class RecognitionMeasurement:
    """What a recognition model made of a set.

    Attributes:
        samples: Every sample of the set, or of a rank's share of it, in the order of the set.
        readable: Characters of the model's dictionary.
        unusable: Samples that preparation had to leave out of the set; they count as wrong.
    """

    samples: tuple[ReadSample, ...]
    readable: frozenset[str]
    unusable: int = 0

    @cached_property
    def metric(self) -> RecognitionMetric:
        """The sums; those of ranks add up."""
        return self.metric_of(self.samples) + RecognitionMetric.wrong(self.unusable)

    def metric_of(self, samples: Iterable[ReadSample]) -> RecognitionMetric:
        """The sums of some of the samples."""
        chosen = list(samples)
        return RecognitionMetric.of(
            [sample.prediction for sample in chosen], [sample.label for sample in chosen], readable=self.readable
        )

    @property
    def sums(self) -> NDArray[np.float64]:
        """What ranks add up before they ask `scores_of`: float64 (K,)."""
        return self.metric.sums

    @staticmethod
    def scores_of(sums: NDArray[np.float64]) -> dict[str, float | int | None]:
        """The figures under the manifest's names, from `sums` of one rank or of all added up."""
        return RecognitionMetric(sums).scores().as_dict()

    @cached_property
    def texts(self) -> Sequence[str]:
        """What was read, in the order of the samples."""
        return [sample.prediction for sample in self.samples]

    def unreadable(self) -> dict[str, int]:
        """Characters of the labels that the model cannot read whatever it sees, and how many samples have each."""
        counts: dict[str, int] = {}
        for sample in self.samples:
            for character in set(sample.label) - self.readable:
                counts[character] = counts.get(character, 0) + 1
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
