"""Lines for the orientation classifier, made of recognition data by turning crops: nothing has to be labelled for
it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from ocr_finetune_trainer.data.pictures import decode

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ocr_finetune_trainer.data.store import Sample
    from ocr_finetune_trainer.orientation_geometry import OrientationGeometry

__all__ = ["OrientationTransform", "can_be_told", "turn"]

# What looks the same, or like another character, upside down.
_SAME = "01258HINOSXZloszx-–—|.·:%+=~ "
_SWAPPED = ("69", "un", "dp", "bq", "MW", "()")
_TURNED = {character: character for character in _SAME} | {pair[i]: pair[1 - i] for pair in _SWAPPED for i in (0, 1)}


def can_be_told(text: str) -> bool:
    """Whether a line with this text looks different upside down: `H8H` and `96` don't, for 96 becomes 96."""
    turned = [_TURNED.get(character) for character in reversed(text)]
    return None in turned or "".join(character or "" for character in turned) != text


def turn(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A line turned by 180 degrees."""
    return np.asarray(cv2.rotate(picture, cv2.ROTATE_180), dtype=np.uint8)


class OrientationTransform:
    """Makes training samples. Safe to send to other processes.

    Args:
        geometry: How a line becomes an input.
        augment: Whether brightness and contrast are changed at random.
    """

    def __init__(self, geometry: OrientationGeometry, *, augment: bool = True) -> None:
        self.geometry = geometry
        self.augment = augment

    def __call__(self, sample: Sample, rng: np.random.Generator, **_: Any) -> dict[str, NDArray[Any]]:
        """One sample: `image` uint8 (H, W, 3) RGB, and `turned`, an int64 number: whether it stands on its head.

        Every second line is turned; one that looks the same upside down stays, for turning it would teach nothing.

        Raises:
            PictureError: Its picture can't be decoded.
        """
        picture = decode(sample.image)
        turned = bool(rng.random() < 0.5) and can_be_told(sample.text)
        image = self.geometry.resize(turn(picture) if turned else picture)
        if self.augment:
            values = image.astype(np.float32)
            values = (values - 128.0) * rng.uniform(0.7, 1.3) + 128.0 + rng.uniform(-30.0, 30.0)
            image = values.clip(0, 255).astype(np.uint8)
        return {"image": image, "turned": np.asarray(turned, dtype=np.int64)}
