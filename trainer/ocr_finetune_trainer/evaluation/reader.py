"""The one way from crops to texts: validation in training, evaluation, `predict` and the checks of an export use it."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from ocr_finetune_trainer.evaluation.networks import as_network

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from ocr_finetune_trainer.geometry import RecognitionGeometry

__all__ = ["Padding", "Reading", "Recogniser", "collapse"]

BLANK = 0


class HasClasses(Protocol):
    """What a dictionary must offer here (`ocr_finetune_trainer.dictionary.Dictionary` does)."""

    @property
    def classes(self) -> Sequence[str]:
        """The text of each CTC class; class 0 is the blank."""


class Reading(NamedTuple):
    """What a model reads in a crop.

    Attributes:
        text: The text; "" if there is none.
        score: Mean probability of its characters, 0 for an empty text.
    """

    text: str
    score: float


class Padding(StrEnum):
    """How wide a crop becomes by padding; a model sees the padding, so it can matter for the text."""

    BUCKET = "bucket"  # the geometry's buckets, as in training: few shapes, so batches are full
    SERVING = "serving"  # to the pixel what paddleocr does with a crop alone


class Recogniser:
    """Reads crops with a recognition model.

    A crop's padded width depends on the crop alone, never on its neighbours in a batch, so a text does not change with
    the order of pictures or the batch size.

    Args:
        model: A Paddle layer or a `Network`.
        geometry: How crops become its input.
        dictionary: The texts of its classes.
        batch_size: Crops in a batch of the least width; wider ones go in batches of as many pixels.
        padding: Which width a crop is padded to.
    """

    def __init__(
        self,
        model: Any,
        *,
        geometry: RecognitionGeometry,
        dictionary: HasClasses,
        batch_size: int = 32,
        padding: Padding = Padding.BUCKET,
    ) -> None:
        self._network = as_network(model)
        self._geometry = geometry
        self._classes = np.asarray(dictionary.classes, dtype=object)
        self._batch_size = batch_size
        self._padding = padding

    def width(self, *, height: int, width: int) -> int:
        """Columns that a crop of this size is padded to."""
        if self._padding is Padding.SERVING:
            return self._geometry.padded_width(height=height, width=width)
        return self._geometry.bucket(self._geometry.content_width(height=height, width=width))

    def read(self, images: Sequence[NDArray[np.uint8]]) -> list[Reading]:
        """Reads crops.

        Args:
            images: uint8 (h, w, 3), BGR, of any sizes.

        Returns:
            One reading a crop, in their order.

        Raises:
            ValueError: A crop is empty or not uint8 with three channels.
        """
        readings: list[Reading] = [Reading("", 0.0)] * len(images)
        for batch, width in self._batches(images):
            x = self._geometry.batch([images[i] for i in batch], width=width)
            classes, probabilities = self._network.best(x)
            for i, row, scores in zip(batch, classes, probabilities, strict=True):
                readings[i] = self._decode(row, scores)
        return readings

    def _batches(self, images: Sequence[NDArray[np.uint8]]) -> Iterator[tuple[list[int], int]]:
        by_width: dict[int, list[int]] = {}
        for i, image in enumerate(images):
            by_width.setdefault(self.width(height=image.shape[0], width=image.shape[1]), []).append(i)
        least = self._geometry.min_width
        for width in sorted(by_width):
            members = by_width[width]
            size = max(1, self._batch_size * least // max(width, least))
            for start in range(0, len(members), size):
                yield members[start : start + size], width

    def _decode(self, classes: NDArray[np.int64], probabilities: NDArray[np.float32]) -> Reading:
        kept = collapse(classes)
        if not kept.any():
            return Reading("", 0.0)
        return Reading("".join(self._classes[classes[kept]]), float(probabilities[kept].mean()))


def collapse(classes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which frames of a row (T,) stand for a character: neither blank nor a repetition of the frame before."""
    kept = classes != BLANK
    kept[1:] &= classes[1:] != classes[:-1]
    return np.asarray(kept, dtype=np.bool_)
