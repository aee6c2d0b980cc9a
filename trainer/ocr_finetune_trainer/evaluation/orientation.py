"""Measures the orientation classifier: every line is shown upright and, where that looks different, upside down."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ocr_finetune_trainer.data.orientation_samples import can_be_told, turn
from ocr_finetune_trainer.data.pictures import PictureError, decode
from ocr_finetune_trainer.evaluation.networks import as_network
from ocr_finetune_trainer.evaluation.sample_evaluation import OneSample

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ocr_finetune_trainer.evaluation.evaluate import Samples
    from ocr_finetune_trainer.orientation_geometry import OrientationGeometry

__all__ = ["JudgedLine", "OrientationClassifier", "OrientationMeasurement", "measure_orientation"]


class OrientationClassifier:
    """Says whether lines stand on their heads.

    Args:
        model: A Paddle layer or a `Network`.
        geometry: How lines become its input.
        batch_size: Lines in a batch.
    """

    def __init__(self, model: Any, *, geometry: OrientationGeometry, batch_size: int = 32) -> None:
        self._network = as_network(model)
        self._geometry = geometry
        self._batch_size = batch_size

    def turned(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """The probability that each line, uint8 (h, w, 3) BGR, stands on its head: float32 (N,)."""
        parts = [
            self._network.run(self._geometry.batch(images[start : start + self._batch_size]))[:, 1]
            for start in range(0, len(images), self._batch_size)
        ]
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedLine:
    """One line as it was shown.

    Attributes:
        index: Position in its data set.
        turned: Whether it was shown upside down.
        probability: What the model thinks the probability of that is.
        text: What it says.
        source: Name of its source.
        problem: Why it could not be shown.
    """

    index: int
    turned: bool
    probability: float
    text: str = ""
    source: str = ""
    problem: str = ""

    @property
    def right(self) -> bool:
        """Whether the model is right."""
        return not self.problem and (self.probability >= 0.5) == self.turned


@dataclass(frozen=True, kw_only=True)
class OrientationMeasurement:
    """What a classifier made of a set.

    Attributes:
        lines: Every line as it was shown, in the order of the set, upright before upside down.
        unusable: Lines that preparation had to leave out of the set; they count as wrong.
    """

    lines: tuple[JudgedLine, ...]
    unusable: int = 0

    @property
    def sums(self) -> NDArray[np.float64]:
        """What ranks add up before they ask `scores_of`: float64 (4,)."""
        shown = [line.turned for line in self.lines]
        right = [line.right for line in self.lines]
        turned_right = sum(r for r, t in zip(right, shown, strict=True) if t)
        return np.asarray([len(shown) + self.unusable, sum(right), sum(shown), turned_right], dtype=np.float64)

    def each(self) -> list[OneSample]:
        """Every line as it was shown, with what it adds to the sums."""
        return [
            OneSample(
                index=line.index,
                source=line.source,
                right=line.right,
                sums=OrientationMeasurement(lines=(line,)).sums,
            )
            for line in self.lines
        ]

    @staticmethod
    def scores_of(sums: NDArray[np.float64]) -> dict[str, float | int | None]:
        """The figures under the manifest's names, from `sums` of one rank or of all added up."""
        shown, right, turned, turned_right = (float(value) for value in sums)
        upright = shown - turned
        return {
            "samples": round(shown),
            "accuracy": right / shown if shown else 0.0,
            "accuracyUpright": (right - turned_right) / upright if upright else None,
            "accuracyTurned": turned_right / turned if turned else None,
        }


def measure_orientation(
    model: Any,
    dataset: Samples,
    *,
    geometry: OrientationGeometry,
    indices: Sequence[int] | None = None,
    batch_size: int = 32,
    unusable: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> OrientationMeasurement:
    """Shows every line of a data set both ways.

    Args:
        model: A Paddle layer or a `Network`.
        dataset: Labelled lines.
        geometry: How lines become the model's input.
        indices: Which lines; None for all. A rank gives its share, and the ranks' `sums` add up.
        batch_size: Lines in a batch.
        unusable: Lines that preparation had to leave out of the set; they count as wrong.
        progress: Called with lines done and lines in all.
    """
    classifier = OrientationClassifier(model, geometry=geometry, batch_size=batch_size)
    return show_lines(
        classifier.turned,
        dataset,
        indices=indices,
        batch_size=batch_size,
        unusable=unusable,
        progress=progress,
    )


def show_lines(
    judge: Callable[[Sequence[NDArray[np.uint8]]], Sequence[float] | NDArray[np.float32]],
    dataset: Samples,
    *,
    indices: Sequence[int] | None = None,
    batch_size: int = 32,
    unusable: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> OrientationMeasurement:
    """As `measure_orientation`, with anything that gives the probability that lines are turned."""
    chosen = list(range(len(dataset))) if indices is None else [int(i) for i in indices]
    lines: list[JudgedLine] = []
    for start in range(0, len(chosen), batch_size):
        lines += _show(judge, dataset, chosen[start : start + batch_size])
        if progress is not None:
            progress(min(start + batch_size, len(chosen)), len(chosen))
    lines.sort(key=lambda line: (line.index, line.turned))
    return OrientationMeasurement(lines=tuple(lines), unusable=unusable)


def _show(judge: Any, dataset: Samples, indices: Sequence[int]) -> list[JudgedLine]:
    shown: list[tuple[int, bool, Any]] = []
    pictures: list[NDArray[np.uint8]] = []
    lines: list[JudgedLine] = []
    for index in indices:
        sample = dataset[index]
        try:
            picture = decode(sample.image)
        except PictureError as error:
            lines.append(JudgedLine(index=index, turned=False, probability=0.0, problem=str(error)))
            continue
        for turned in (False, True) if can_be_told(sample.text) else (False,):
            shown.append((index, turned, sample))
            pictures.append(turn(picture) if turned else picture)
    for (index, turned, sample), probability in zip(shown, judge(pictures), strict=True):
        lines.append(
            JudgedLine(
                index=index,
                turned=turned,
                probability=float(probability),
                text=sample.text,
                source=dataset.source_names[sample.source],
            )
        )
    return lines
