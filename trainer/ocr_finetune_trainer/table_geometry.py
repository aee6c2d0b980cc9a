"""How a picture of a table becomes a model's input and boxes find their way back: one rule for training and serving.

It follows `paddleocr` 3.7, which serves SLANet's boxes as parts of the picture but those of SLANet_plus as parts of the
padded square. PaddleOCR's training takes parts of the picture for both (and its own evaluation reads them as parts of
the square), so boxes of a SLANet_plus trained there come out squeezed wherever the picture isn't square. Here the
targets are what serving reads.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import cv2
import numpy as np

from ocr_finetune_trainer.data.table_labels import Vocabulary, encode_boxes, vocabulary_for
from ocr_finetune_trainer.geometry import Normalization

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["TableGeometry", "table_geometry"]

_IMAGENET = Normalization(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


@dataclass(frozen=True, kw_only=True)
class TableGeometry:
    """How a picture of a table becomes the input of a table model.

    Attributes:
        side: Length of the long side after resizing, and of both sides after padding at the right and the bottom.
        box_numbers: Numbers of a cell's box.
        padded_frame: Whether boxes are parts of the padded square instead of the picture.
        vocabulary: The structure tokens that the model knows.
        normalization: Value range of the model; padding is 0 after it.
    """

    side: int = 488
    box_numbers: int = 4
    padded_frame: bool = False
    vocabulary: Vocabulary = field(default_factory=lambda: vocabulary_for("SLANet"))
    normalization: Normalization = _IMAGENET

    def size(self, *, height: int, width: int) -> tuple[int, int]:
        """Rows and columns after resizing, before padding; at least 1."""
        scale = self.side / max(height, width)
        return max(round(height * scale), 1), max(round(width * scale), 1)

    def resize(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Resizes one picture, uint8 (h, w, 3), without padding."""
        height, width = picture.shape[:2]
        rows, columns = self.size(height=height, width=width)
        if (rows, columns) == (height, width):
            return picture
        return np.asarray(cv2.resize(picture, (columns, rows)), dtype=np.uint8)

    def batch(self, pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Resizes, normalises and pads pictures.

        Args:
            pictures: uint8 (h, w, 3), BGR, of any sizes.

        Returns:
            float32 (N, 3, side, side).
        """
        out = np.zeros((len(pictures), 3, self.side, self.side), dtype=np.float32)
        for row, picture in zip(out, pictures, strict=True):
            resized = self.resize(picture)
            row[:, : resized.shape[0], : resized.shape[1]] = self.normalization(resized)
        return out

    def frame(self, *, height: int, width: int) -> tuple[float, float]:
        """Width and height, in pixels of the picture, of what boxes are parts of."""
        if not self.padded_frame:
            return float(width), float(height)
        return (max(height, width),) * 2

    def encode_boxes(self, boxes: NDArray[np.float32], *, height: int, width: int) -> NDArray[np.float32]:
        """Boxes (N, `box_numbers`) in pixels of a picture of this size as parts of the frame."""
        columns, rows = self.frame(height=height, width=width)
        return encode_boxes(boxes, width=columns, height=rows)


_OF_MODEL = {
    "SLANet": TableGeometry(),
    "SLANet_small": TableGeometry(side=160),
    "SLANet_plus": TableGeometry(box_numbers=8, padded_frame=True, vocabulary=vocabulary_for("SLANet_plus")),
}


def table_geometry(model_name: str) -> TableGeometry:
    """The geometry of a table model.

    Raises:
        ValueError: It is no table model.
    """
    try:
        return _OF_MODEL[model_name]
    except KeyError:
        raise ValueError(f"{model_name} is no table model; known are {', '.join(_OF_MODEL)}") from None
