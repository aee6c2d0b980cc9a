"""Changes lines of text at random, as PaddleOCR's RecAug and RecConAug do, at a tenth of their cost.

The reference warps a line up to three times with thin plates, each solved for every pixel. Here all bending is
collected on
a few nodes along the upper and the lower edge, made smooth in between, and applied with one `cv2.remap`. Noise comes
from
a table, colours from look-up tables. Each operation is a pure function of a picture and a generator.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import cv2
import numpy as np

from ocr_finetune_trainer.data.labels import frames_needed
from ocr_finetune_trainer.data.recognition_samples import frame_stride

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Picture = NDArray[np.uint8]

__all__ = [
    "OPERATIONS",
    "RecognitionAugmentation",
    "Warp",
    "blur",
    "colour",
    "concatenate",
    "crop",
    "distort",
    "jitter",
    "noise",
    "perspective",
    "reverse",
    "stretch",
    "suited",
    "warp",
]

_LEAST_SIDE = 8  # smaller pictures have nothing to bend
_NOISE_BYTES = 1 << 20
_NOISE_SCALE = 16.0


@dataclass(slots=True)
class Warp:
    """Where each node of the two edges takes its colour from, relative to where it is.

    Attributes:
        top: float32 (2, K): shifts of x and y along the upper edge, in pixels.
        bottom: float32 (2, K): the same along the lower edge.
    """

    top: NDArray[np.float32]
    bottom: NDArray[np.float32]

    @classmethod
    def none(cls, nodes: int) -> Warp:
        """A warp that changes nothing yet."""
        return cls(np.zeros((2, nodes), dtype=np.float32), np.zeros((2, nodes), dtype=np.float32))


def distort(shifts: Warp, rng: np.random.Generator, *, height: int, width: int, strength: float = 1.0) -> None:
    """Moves every node of both edges at random, the ends too: letters lean and swell (`tia_distort`)."""
    nodes = shifts.top.shape[1]
    across = strength * width / (nodes - 1) / 10.0
    along = strength * height / 6.0
    scale = np.array([[across], [along]], dtype=np.float32)
    moved = rng.random((2, 2, nodes), dtype=np.float32) * 2.0 - 1.0
    shifts.top += moved[0] * scale
    shifts.bottom += moved[1] * scale


def stretch(shifts: Warp, rng: np.random.Generator, *, width: int, strength: float = 1.0) -> None:
    """Moves nodes left and right, the same on both edges: letters become wider or narrower (`tia_stretch`)."""
    nodes = shifts.top.shape[1]
    moved = (rng.random(nodes - 2, dtype=np.float32) * 2.0 - 1.0) * (strength * 0.2 * width / (nodes - 1))
    shifts.top[0, 1:-1] += moved
    shifts.bottom[0, 1:-1] += moved


def perspective(shifts: Warp, rng: np.random.Generator, *, height: int, strength: float = 1.0) -> None:
    """Looks at the line from one side: its four corners move up or down (`tia_perspective`)."""
    corners = rng.random(4, dtype=np.float32) * (strength * 0.25 * height)
    ramp = np.linspace(0.0, 1.0, shifts.top.shape[1], dtype=np.float32)
    # Outward shifts of the source make the picture smaller, so no letter leaves it.
    shifts.top[1] -= corners[0] * (1.0 - ramp) + corners[1] * ramp
    shifts.bottom[1] += corners[2] * (1.0 - ramp) + corners[3] * ramp


def warp(picture: Picture, shifts: Warp) -> Picture:
    """Bends a picture.

    Args:
        picture: uint8 (H, W, 3).
        shifts: Where the nodes take their colours from.

    Returns:
        uint8 (H, W, 3).
    """
    height, width = picture.shape[:2]
    edges = np.concatenate([shifts.top, shifts.bottom])
    curves = cv2.resize(edges, (width, 4), interpolation=cv2.INTER_CUBIC) if edges.shape[1] != width else edges
    # (4, W): x and y of the upper edge, then of the lower one; rows between them are blended linearly.
    weight = _weights(height)
    base_x, base_y = _grid(height, width)
    map_x = base_x + (curves[0] + weight * (curves[2] - curves[0]))
    map_y = base_y + (curves[1] + weight * (curves[3] - curves[1]))
    return np.asarray(
        cv2.remap(picture, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), dtype=np.uint8
    )


@lru_cache(maxsize=8)
def _weights(height: int) -> NDArray[np.float32]:
    return np.linspace(0.0, 1.0, height, dtype=np.float32)[:, None]


@lru_cache(maxsize=8)
def _grid(height: int, width: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    return np.arange(width, dtype=np.float32)[None, :], np.arange(height, dtype=np.float32)[:, None]


def crop(picture: Picture, rng: np.random.Generator) -> Picture:
    """Cuts up to a sixth of the height off the upper or the lower edge, and enlarges the rest to the old size."""
    height, width = picture.shape[:2]
    cut = int(rng.integers(1, max(2, height // 6 + 1)))
    kept = picture[cut:] if rng.random() < 0.5 else picture[: height - cut]
    return np.asarray(cv2.resize(kept, (width, height)), dtype=np.uint8)


def blur(picture: Picture, rng: np.random.Generator) -> Picture:
    """Blurs with a Gaussian, as a lens out of focus does."""
    sigma = 0.4 + 1.2 * rng.random()
    return np.asarray(cv2.GaussianBlur(picture, (5, 5), sigma), dtype=np.uint8)


def colour(picture: Picture, rng: np.random.Generator) -> Picture:
    """Changes brightness, contrast, gamma and the colour of the light."""
    draw = rng.random(6)
    gain = (0.75 + 0.5 * draw[0]) * (0.92 + 0.16 * draw[1:4])
    shift = 50.0 * (draw[4] - 0.5)
    gamma = 0.8 + 0.45 * draw[5]
    levels = 255.0 * _levels() ** gamma
    table = (levels[:, None] * gain + shift).clip(0, 255).astype(np.uint8)[None]
    return np.asarray(cv2.LUT(picture, table), dtype=np.uint8)


@lru_cache(maxsize=1)
def _levels() -> NDArray[np.float64]:
    return np.arange(256) / 255.0


def jitter(picture: Picture, rng: np.random.Generator) -> Picture:
    """Smears the picture by a pixel or two in one direction, as a camera that moves does."""
    across, down = (int(value) for value in rng.integers(-2, 3, size=2))
    height, width = picture.shape[:2]
    matrix = np.array([[1, 0, across], [0, 1, down]], dtype=np.float32)
    moved = cv2.warpAffine(picture, matrix, (width, height), flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(cv2.addWeighted(picture, 0.5, moved, 0.5, 0.0), dtype=np.uint8)


def noise(picture: Picture, rng: np.random.Generator) -> Picture:
    """Adds Gaussian noise of a random strength."""
    sigma = 2.0 + 14.0 * rng.random()
    table = _noise()
    size = picture.size
    if size >= len(table):
        added = np.resize(table, size)
    else:
        start = int(rng.integers(len(table) - size))
        added = table[start : start + size]
    noisy = cv2.addWeighted(picture, 1.0, added.reshape(picture.shape), sigma / _NOISE_SCALE, 0.0, dtype=cv2.CV_8U)
    return np.asarray(noisy, dtype=np.uint8)


@lru_cache(maxsize=1)
def _noise() -> NDArray[np.int8]:
    """Normal numbers of standard deviation 16; drawing them anew would cost more than all the rest."""
    values = np.random.default_rng(20240509).standard_normal(_NOISE_BYTES, dtype=np.float32) * _NOISE_SCALE
    return values.round().clip(-127, 127).astype(np.int8)


def reverse(picture: Picture, rng: np.random.Generator) -> Picture:  # noqa: ARG001 - all operations are alike
    """Makes white text of black, and black of white."""
    return np.asarray(cv2.bitwise_not(picture), dtype=np.uint8)


def concatenate(first: Picture, second: Picture) -> Picture:
    """Puts one line behind another (RecConAug); both have the same height."""
    return np.concatenate([first, second], axis=1)


Operation = Callable[["Picture", np.random.Generator], "Picture"]

# In the order in which they are applied.
OPERATIONS: dict[str, Operation] = {
    "crop": crop,
    "blur": blur,
    "colour": colour,
    "jitter": jitter,
    "noise": noise,
    "reverse": reverse,
}


@dataclass(frozen=True, kw_only=True)
class RecognitionAugmentation:
    """How often and how much lines are changed; the defaults are PaddleOCR's frequencies.

    Attributes:
        warp: Probability of bending (distortion, stretch and perspective together).
        crop: Probability of a cut edge.
        blur: Probability of blur.
        colour: Probability of another light.
        jitter: Probability of a smear.
        noise: Probability of noise.
        reverse: Probability of swapped black and white.
        concatenate: Probability that other lines are put behind, as far as there is room.
        strength: Factor of all bending.
        longest: Characters that a line may have after others were put behind it.
        stride: Columns that a frame of the model's output stands for: CTC needs a frame for each character, and what it
            can't align it does not learn, in silence.
    """

    warp: float = 0.4
    crop: float = 0.4
    blur: float = 0.4
    colour: float = 0.4
    jitter: float = 0.4
    noise: float = 0.4
    reverse: float = 0.4
    concatenate: float = 0.5
    strength: float = 1.0
    longest: int = 25
    stride: int = 8

    @classmethod
    def gentle(cls) -> RecognitionAugmentation:
        """For small models and single characters, where a bent 1 is soon a 7."""
        return cls(warp=0.4, crop=0.0, blur=0.2, colour=0.4, jitter=0.2, noise=0.3, reverse=0.0, concatenate=0.0,
                   strength=0.5)  # fmt: skip

    def __call__(
        self,
        picture: Picture,
        rng: np.random.Generator,
        *,
        text: str,
        width: int,
        other: Callable[[np.random.Generator], tuple[Picture, str]] | None,
    ) -> tuple[Picture, str]:
        """Changes a line.

        Args:
            picture: uint8 (H, W, 3), BGR.
            rng: Random numbers.
            text: What it says.
            width: Columns it may have at most.
            other: Gives another line of the same height with its text; None where there is none.

        Returns:
            The changed line, of the same height and at most `width` columns, and what it says.
        """
        chances = rng.random(8)
        if other is not None and chances[7] < self.concatenate:
            picture, text = self._lengthen(picture, rng, text=text, width=width, other=other)
        if min(picture.shape[:2]) < _LEAST_SIDE:
            return picture, text
        if chances[0] < self.warp:
            picture = warp(picture, self._shifts(picture, rng))
        for chance, (name, operation) in zip(chances[1:7], OPERATIONS.items(), strict=True):
            if chance < getattr(self, name):
                picture = operation(picture, rng)
        return picture, text

    def _shifts(self, picture: Picture, rng: np.random.Generator) -> Warp:
        height, width = picture.shape[:2]
        shifts = Warp.none(int(rng.integers(4, 8)))
        distort(shifts, rng, height=height, width=width, strength=self.strength)
        stretch(shifts, rng, width=width, strength=self.strength)
        perspective(shifts, rng, height=height, strength=self.strength)
        return shifts

    def _lengthen(
        self,
        picture: Picture,
        rng: np.random.Generator,
        *,
        text: str,
        width: int,
        other: Callable[[np.random.Generator], tuple[Picture, str]],
    ) -> tuple[Picture, str]:
        """Puts up to two lines behind a line, each only if picture and text stay within their limits."""
        for _ in range(2):
            if picture.shape[1] > 0.85 * width or len(text) >= self.longest:
                break
            more, said = other(rng)
            if picture.shape[1] + more.shape[1] > width or len(text) + len(said) > self.longest:
                break
            if frames_needed(text + said) * self.stride > width:
                break
            picture, text = concatenate(picture, more), text + said
        return picture, text


def suited(model_name: str, *, longest: int = 25) -> RecognitionAugmentation:
    """The augmentation that suits a model.

    Args:
        model_name: A name of the model table.
        longest: Longest label to be trained on.
    """
    if model_name == "MobileNetV3_small_ctc":
        return RecognitionAugmentation.gentle()
    return RecognitionAugmentation(longest=longest, stride=frame_stride(model_name))
