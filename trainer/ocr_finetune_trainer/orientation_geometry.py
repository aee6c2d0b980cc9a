"""How a text line becomes the input of the orientation classifier: as `paddleocr` 3.7 does it, the ratio is not kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from ocr_finetune_trainer.geometry import Normalization

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["ORIENTATION_GEOMETRY", "OrientationGeometry"]

_IMAGENET = Normalization(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


@dataclass(frozen=True, kw_only=True)
class OrientationGeometry:
    """How a text line becomes an input.

    Attributes:
        height: Rows of the input.
        width: Columns of the input.
        normalization: Value range of the model, for channels in the order red, green, blue.
    """

    height: int = 80
    width: int = 160
    normalization: Normalization = _IMAGENET

    def resize(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """One line, uint8 (h, w, 3) BGR, to uint8 (`height`, `width`, 3) RGB."""
        resized = cv2.resize(picture, (self.width, self.height), interpolation=cv2.INTER_LINEAR)
        return np.ascontiguousarray(resized[:, :, ::-1], dtype=np.uint8)

    def batch(self, pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Lines, uint8 (h, w, 3) BGR of any sizes, to float32 (N, 3, `height`, `width`)."""
        out = np.zeros((len(pictures), 3, self.height, self.width), dtype=np.float32)
        for row, picture in zip(out, pictures, strict=True):
            row[...] = self.normalization(self.resize(picture))
        return out


ORIENTATION_GEOMETRY = OrientationGeometry()
