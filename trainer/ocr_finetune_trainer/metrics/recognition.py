"""How well a recognition model reads: accuracy, edit similarity and error rates on raw text.

PaddleOCR drops characters outside the dictionary from the *label* and ignores spaces before it compares, so a model that
cannot read a character is not charged for it. Here the raw texts are compared, and PaddleOCR's figures stand beside them
so that people can compare with what they know. Counters are sums, so the counters of ranks add up to those of the whole.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
from rapidfuzz.distance import Levenshtein

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["PEER_EPSILON", "RecognitionMetric", "RecognitionScores", "higher_is_better", "text_distance"]

# What PaddleOCR adds to each denominator; kept so that its figures come out digit by digit.
PEER_EPSILON = 1e-5

_SPACES = re.compile(r"\s+")
_FIELDS = (
    "samples",
    "exact",
    "similarity",
    "distance",
    "characters",
    "word_distance",
    "words",
    "labels_with_spaces",
    "peer_samples",
    "peer_exact",
    "peer_distance",
)


def higher_is_better(metric: str) -> bool:
    """Whether a metric of this module or of detection improves when it rises."""
    return metric not in ("characterErrorRate", "wordErrorRate")


def text_distance(prediction: str, label: str) -> int:
    """Levenshtein distance in code points."""
    return int(Levenshtein.distance(prediction, label))


def _words(text: str) -> list[str]:
    return _SPACES.sub(" ", text).strip().split(" ") if text.strip() else []


@dataclass(frozen=True, kw_only=True)
class RecognitionScores:
    """The figures of one model on one set.

    Attributes:
        samples: How many samples were read.
        accuracy: Part of samples whose text is equal to the label.
        edit_similarity: Mean of `1 - distance / longer length`, over samples; higher is better.
        character_error_rate: Sum of distances over sum of label lengths; may exceed 1.
        word_error_rate: The same over words, or None where no label has a space.
        peer_accuracy: PaddleOCR's `acc`.
        peer_edit_similarity: PaddleOCR's `norm_edit_dis`.
    """

    samples: int
    accuracy: float
    edit_similarity: float
    character_error_rate: float
    word_error_rate: float | None
    peer_accuracy: float
    peer_edit_similarity: float

    def as_dict(self) -> dict[str, float | int | None]:
        """The figures under the names of the manifest and of `metrics.json`."""
        return {
            "samples": self.samples,
            "accuracy": self.accuracy,
            "editSimilarity": self.edit_similarity,
            "characterErrorRate": self.character_error_rate,
            "wordErrorRate": self.word_error_rate,
            "paddleocrAccuracy": self.peer_accuracy,
            "paddleocrEditSimilarity": self.peer_edit_similarity,
        }


@dataclass(frozen=True)
class RecognitionMetric:
    """Sums from which the figures follow; immutable, added with `+`.

    Attributes:
        sums: float64, one value for each counter. Adding the arrays of all ranks gives that of the whole set.
    """

    sums: NDArray[np.float64]

    @classmethod
    def empty(cls) -> Self:
        """Nothing measured yet."""
        return cls(np.zeros(len(_FIELDS), dtype=np.float64))

    @classmethod
    def of(
        cls,
        predictions: Sequence[str],
        labels: Sequence[str],
        *,
        readable: Iterable[str] | None = None,
        ignore_spaces: bool = True,
    ) -> Self:
        """Measures some samples.

        Args:
            predictions: What the model read; "" for a sample that could not be read.
            labels: What is there, raw.
            readable: The dictionary's characters, for PaddleOCR's variant only: it drops all others from the label, and
                does not count samples of which nothing is left. None drops nothing.
            ignore_spaces: Whether PaddleOCR's variant ignores spaces, as it does by default.

        Raises:
            ValueError: The lengths differ.
        """
        known = None if readable is None else frozenset(readable)
        sums = dict.fromkeys(_FIELDS, 0.0)
        for prediction, label in zip(predictions, labels, strict=True):
            _count(sums, prediction, label)
            _count_peer(sums, prediction, label, known=known, ignore_spaces=ignore_spaces)
        return cls(np.asarray([sums[name] for name in _FIELDS], dtype=np.float64))

    @classmethod
    def wrong(cls, samples: int) -> Self:
        """Samples that no model was shown because their picture or label is unusable: wrong, whatever they say."""
        sums = dict.fromkeys(_FIELDS, 0.0) | {"samples": float(samples)}
        return cls(np.asarray(list(sums.values()), dtype=np.float64))

    def __add__(self, other: RecognitionMetric) -> RecognitionMetric:
        return RecognitionMetric(self.sums + other.sums)

    def scores(self) -> RecognitionScores:
        """The figures; all are 0 where there is nothing to measure."""
        get: Mapping[str, float] = dict(zip(_FIELDS, self.sums.tolist(), strict=True))
        samples = max(get["samples"], 1.0)
        return RecognitionScores(
            samples=int(get["samples"]),
            accuracy=get["exact"] / samples,
            edit_similarity=get["similarity"] / samples,
            character_error_rate=get["distance"] / max(get["characters"], 1.0),
            word_error_rate=get["word_distance"] / max(get["words"], 1.0) if get["labels_with_spaces"] else None,
            peer_accuracy=get["peer_exact"] / (get["peer_samples"] + PEER_EPSILON),
            peer_edit_similarity=1 - get["peer_distance"] / (get["peer_samples"] + PEER_EPSILON),
        )


def _count(sums: dict[str, float], prediction: str, label: str) -> None:
    distance = text_distance(prediction, label)
    longer = max(len(prediction), len(label))
    words = _words(label)
    sums["samples"] += 1
    sums["exact"] += prediction == label
    sums["similarity"] += 1.0 if longer == 0 else 1 - distance / longer
    sums["distance"] += distance
    sums["characters"] += len(label)
    sums["words"] += len(words)
    sums["word_distance"] += Levenshtein.distance(_words(prediction), words)
    sums["labels_with_spaces"] += len(words) > 1


def _count_peer(
    sums: dict[str, float], prediction: str, label: str, *, known: frozenset[str] | None, ignore_spaces: bool
) -> None:
    if known is not None:
        kept = "".join(character for character in label if character in known)
        if label and not kept:
            return
        label = kept
    if ignore_spaces:
        prediction, label = prediction.replace(" ", ""), label.replace(" ", "")
    sums["peer_samples"] += 1
    sums["peer_exact"] += prediction == label
    sums["peer_distance"] += Levenshtein.normalized_distance(prediction, label)
