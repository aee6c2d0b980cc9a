"""The one place that says how a picture becomes a model's input.

PaddleOCR resizes differently in training, in its own evaluation and in serving, so a model is trained, measured and
used on three different pictures. Here one frozen object a model holds the rule of serving (`paddleocr` 3.7), and
training, evaluation and export all ask it. NumPy and OpenCV only: the data preparation uses it without Paddle.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol, TypeAlias

import cv2
import numpy as np

from ocr_finetune_api.model_table import Kind, lookup

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ocr_finetune_trainer.orientation_geometry import OrientationGeometry
    from ocr_finetune_trainer.table_geometry import TableGeometry

__all__ = [
    "OTHER_RULES",
    "PIPELINE_RULE",
    "DetectionGeometry",
    "FixedRule",
    "Geometry",
    "LimitRule",
    "LimitType",
    "LongSideRule",
    "Normalization",
    "RecognitionGeometry",
    "ResizeRule",
    "ResizedPage",
    "detection_geometry",
    "geometry_for",
    "recognition_geometry",
]


@dataclass(frozen=True, kw_only=True)
class Normalization:
    """Turns uint8 values into a model's float32 values: `(value / 255 - mean) / std`, channel by channel in BGR order.

    Attributes:
        mean: Mean of each channel, in units of the full range.
        std: Standard deviation of each channel, in units of the full range.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def scale(self) -> NDArray[np.float32]:
        """What a uint8 value is multiplied by: float32 (3,)."""
        return np.asarray([1.0 / (255.0 * std) for std in self.std], dtype=np.float32)

    @property
    def shift(self) -> NDArray[np.float32]:
        """What is added after that: float32 (3,)."""
        return np.asarray([-mean / std for mean, std in zip(self.mean, self.std, strict=True)], dtype=np.float32)

    def __call__(self, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Normalises one picture.

        Args:
            picture: uint8 (H, W, 3), BGR.

        Returns:
            float32 (3, H, W), contiguous.
        """
        normalised = np.empty((3, *picture.shape[:2]), dtype=np.float32)
        # Plane by plane: a tenth of the time of whole pixels, which a page feels.
        for plane, values, scale, shift in zip(cv2.split(picture), normalised, self.scale, self.shift, strict=True):
            np.multiply(plane, scale, out=values)
            np.add(values, shift, out=values)
        return normalised


# PaddleOCR's recognition models see [-1, 1]; its detection models see ImageNet's statistics, which it applies to BGR as
# it stands (the published models are trained so).
_SYMMETRIC = Normalization(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
_IMAGENET = Normalization(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))

_BUCKETS = (320, 480, 640, 960, 1280, 1920, 2560, 3200)


def _check_picture(picture: NDArray[np.uint8]) -> None:
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
        raise ValueError(f"a picture must be uint8 (height, width, 3), not {picture.dtype} {picture.shape}")
    if picture.size == 0:
        raise ValueError(f"an empty picture of {picture.shape[1]}x{picture.shape[0]} pixels can't be resized")


@dataclass(frozen=True, kw_only=True)
class RecognitionGeometry:
    """How a crop becomes the input of a recognition model.

    The ratio is kept; the crop is padded on the right with zeros *after* normalisation, to `min_width` or to the widest
    of its batch. That is what `paddleocr` 3.7 does when it serves the exported model.

    Attributes:
        height: Rows of the input.
        min_width: Columns that even the narrowest crop is padded to; `image_shape[2]` of the exported `inference.yml`.
        max_width: Columns that even the widest crop is squeezed into.
        buckets: Padded widths that training uses, in rising order, so that shapes repeat; the last is `max_width`.
        normalization: Value range of the model.
    """

    height: int = 48
    min_width: int = 320
    max_width: int = 3200
    buckets: tuple[int, ...] = _BUCKETS
    normalization: Normalization = _SYMMETRIC

    def __post_init__(self) -> None:
        if list(self.buckets) != sorted(set(self.buckets)) or self.buckets[-1] != self.max_width:
            raise ValueError(f"buckets must rise and end with max_width={self.max_width}, not {self.buckets}")

    def padded_width(self, *, height: int, width: int) -> int:
        """Columns of the input when serving reads this crop alone: `min_width` at least, `max_width` at most."""
        ratio = max(self.min_width / self.height, width / height)
        return min(int(self.height * ratio), self.max_width)

    def content_width(self, *, height: int, width: int) -> int:
        """Columns that a crop of this size fills after `resize`; the rest up to the batch's width is padding."""
        return min(math.ceil(self.height * (width / height)), self.padded_width(height=height, width=width))

    def bucket(self, content_width: int) -> int:
        """The narrowest bucket that holds a crop of this many columns.

        Raises:
            ValueError: It is wider than `max_width`.
        """
        for bucket in self.buckets:
            if content_width <= bucket:
                return bucket
        raise ValueError(f"{content_width} columns are more than the widest bucket, {self.max_width}")

    def resize(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Resizes one crop, without padding.

        Args:
            picture: uint8 (h, w, 3), BGR.

        Returns:
            uint8 (`height`, `content_width`, 3).

        Raises:
            ValueError: The picture is empty or not uint8 with three channels.
        """
        _check_picture(picture)
        height, width = picture.shape[:2]
        size = (self.content_width(height=height, width=width), self.height)
        return np.asarray(cv2.resize(picture, size), dtype=np.uint8)

    def batch(self, pictures: Sequence[NDArray[np.uint8]], *, width: int | None = None) -> NDArray[np.float32]:
        """Resizes, normalises and pads crops as serving does.

        Args:
            pictures: Crops, uint8 (h, w, 3), BGR, of any sizes.
            width: Columns to pad to; by default those that serving uses for this batch.

        Returns:
            float32 (N, 3, `height`, width); padding is 0.

        Raises:
            ValueError: There is no crop, one can't be resized, or one is wider than `width`.
        """
        if not pictures:
            raise ValueError("a batch needs at least one picture")
        resized = [self.resize(picture) for picture in pictures]
        if width is None:
            width = max(self.padded_width(height=p.shape[0], width=p.shape[1]) for p in pictures)
        out = np.zeros((len(resized), 3, self.height, width), dtype=np.float32)
        for row, picture in zip(out, resized, strict=True):
            if picture.shape[1] > width:
                raise ValueError(f"a crop of {picture.shape[1]} columns doesn't fit into {width}")
            row[:, :, : picture.shape[1]] = self.normalization(picture)
        return out


class LimitType(StrEnum):
    """Which side of a page `LimitRule.limit_side_len` speaks about."""

    MIN = "min"
    MAX = "max"


class ResizeRule(Protocol):
    """How large a page becomes before detection."""

    @property
    def name(self) -> str:
        """The rule in a word, for reports."""

    @property
    def longest_side(self) -> int:
        """No input has a longer side, but for rounding."""

    def size(self, *, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the input for a page of this size, both multiples of the network's stride, 32."""


def _check_positive(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"{name} must be positive, not {value}")


@dataclass(frozen=True, kw_only=True)
class LimitRule:
    """Keeps a page's size unless a side passes a limit.

    Attributes:
        name: For reports.
        limit_side_len: The limit in pixels.
        limit_type: `min` enlarges a page whose short side is under the limit, `max` shrinks one whose long side is over
            it.
        max_side_limit: No side becomes longer than this.
    """

    name: str
    limit_side_len: int
    limit_type: LimitType
    max_side_limit: int = 4000

    def __post_init__(self) -> None:
        _check_positive(limit_side_len=self.limit_side_len, max_side_limit=self.max_side_limit)

    @property
    def longest_side(self) -> int:
        """`limit_side_len` where that is what limits, else `max_side_limit`."""
        limited = self.limit_type is LimitType.MAX
        return min(self.limit_side_len, self.max_side_limit) if limited else self.max_side_limit

    def size(self, *, height: int, width: int) -> tuple[int, int]:
        """Rows and columns after the limit, each rounded to the nearest multiple of 32."""
        limit = float(self.limit_side_len)
        short, long = min(height, width), max(height, width)
        ratio = 1.0
        if self.limit_type is LimitType.MIN and short < limit:
            ratio = limit / short
        if self.limit_type is LimitType.MAX and long > limit:
            ratio = limit / long
        rows, columns = int(height * ratio), int(width * ratio)
        if max(rows, columns) > self.max_side_limit:
            ratio = self.max_side_limit / max(rows, columns)
            rows, columns = int(rows * ratio), int(columns * ratio)
        return max(round(rows / 32) * 32, 32), max(round(columns / 32) * 32, 32)


@dataclass(frozen=True, kw_only=True)
class LongSideRule:
    """Brings the long side to a length and raises both sides to multiples of 128 (`resize_long` of PaddleOCR).

    Attributes:
        name: For reports.
        long_side: The length in pixels.
    """

    name: str
    long_side: int

    def __post_init__(self) -> None:
        _check_positive(long_side=self.long_side)

    @property
    def longest_side(self) -> int:
        """`long_side` itself."""
        return self.long_side

    def size(self, *, height: int, width: int) -> tuple[int, int]:
        """Rows and columns, multiples of 128."""
        ratio = float(self.long_side) / max(height, width)
        rows, columns = int(height * ratio), int(width * ratio)
        return max(-(-rows // 128), 1) * 128, max(-(-columns // 128), 1) * 128


@dataclass(frozen=True, kw_only=True)
class FixedRule:
    """Every page becomes the same size, without keeping its ratio (`image_shape` of PaddleOCR).

    Attributes:
        name: For reports.
        height: Rows, a multiple of 32.
        width: Columns, a multiple of 32.
    """

    name: str
    height: int
    width: int

    def __post_init__(self) -> None:
        _check_positive(height=self.height, width=self.width)
        if self.height % 32 or self.width % 32:
            raise ValueError(f"{self.width}x{self.height} must be multiples of 32 in both sides")

    @property
    def longest_side(self) -> int:
        """The longer of both."""
        return max(self.height, self.width)

    def size(self, *, height: int, width: int) -> tuple[int, int]:  # noqa: ARG002
        """The fixed rows and columns."""
        return self.height, self.width


# What `paddleocr.PaddleOCR` uses; what PaddleOCR's own evaluation uses; what `paddleocr.TextDetection` alone uses.
PIPELINE_RULE = LimitRule(name="pipeline", limit_side_len=64, limit_type=LimitType.MIN)
OTHER_RULES = (
    LimitRule(name="min736", limit_side_len=736, limit_type=LimitType.MIN),
    LimitRule(name="max960", limit_side_len=960, limit_type=LimitType.MAX),
)


@dataclass(frozen=True, kw_only=True)
class ResizedPage:
    """A page after resizing, with what is needed to bring boxes back.

    Attributes:
        picture: uint8 (H, W, 3), BGR; H and W are multiples of 32.
        height: Rows of the original page.
        width: Columns of the original page.
        ratio_height: H over the rows before resizing.
        ratio_width: W over the columns before resizing.
    """

    picture: NDArray[np.uint8]
    height: int
    width: int
    ratio_height: float
    ratio_width: float


@dataclass(frozen=True, kw_only=True)
class DetectionGeometry:
    """How a page becomes the input of a detection model.

    Attributes:
        rule: The size rule; by default that of `paddleocr`'s pipeline.
        other_rules: The other usual rules; evaluation reports them beside.
        train_height: Rows of a training crop.
        train_width: Columns of a training crop.
        normalization: Value range of the model.
    """

    rule: ResizeRule = PIPELINE_RULE
    other_rules: tuple[ResizeRule, ...] = OTHER_RULES
    train_height: int = 640
    train_width: int = 640
    normalization: Normalization = field(default=_IMAGENET)

    def __post_init__(self) -> None:
        if self.train_height % 32 or self.train_width % 32:
            raise ValueError(
                f"a training crop of {self.train_width}x{self.train_height} must have sides that are multiples of 32"
            )

    def with_rule(self, rule: ResizeRule) -> DetectionGeometry:
        """The same geometry with another size rule."""
        return replace(self, rule=rule)

    def for_pages(self, sizes: NDArray[np.int32]) -> DetectionGeometry:
        """The same geometry with a training crop no larger than pages are: the rest of it would be black.

        Args:
            sizes: (N, 2), width and height of the pages to train on; of each side the crop holds what nine in ten have.

        Returns:
            A geometry whose training crop is at most as large as this one's, and at least 128 pixels.
        """
        if not len(sizes):
            return self
        kinds, counts = np.unique(np.asarray(sizes, dtype=np.int64), axis=0, return_counts=True)
        served = np.array([self.rule.size(height=int(height), width=int(width)) for width, height in kinds])
        rows, columns = np.quantile(np.repeat(served, counts, axis=0), 0.9, axis=0, method="higher").tolist()
        return replace(
            self,
            train_height=min(self.train_height, max(128, rows)),
            train_width=min(self.train_width, max(128, columns)),
        )

    def resize(self, picture: NDArray[np.uint8]) -> ResizedPage:
        """Resizes one page.

        Args:
            picture: uint8 (h, w, 3), BGR.

        Returns:
            The page with its ratios. A page whose sides add up to less than 64 is first padded with black to 32, as
            serving does.

        Raises:
            ValueError: The picture is empty or not uint8 with three channels.
        """
        _check_picture(picture)
        source_height, source_width = picture.shape[:2]
        if source_height + source_width < 64:
            picture = np.pad(
                picture, ((0, max(0, 32 - source_height)), (0, max(0, 32 - source_width)), (0, 0)), mode="constant"
            )
        height, width = picture.shape[:2]
        rows, columns = self.rule.size(height=height, width=width)
        if (rows, columns) != (height, width):
            picture = np.asarray(cv2.resize(picture, (columns, rows)), dtype=np.uint8)
        return ResizedPage(
            picture=picture,
            height=source_height,
            width=source_width,
            ratio_height=rows / height,
            ratio_width=columns / width,
        )


Geometry: TypeAlias = "RecognitionGeometry | DetectionGeometry | TableGeometry | OrientationGeometry"

_PP_OCR_RECOGNITION = RecognitionGeometry()
# CRNN was made for 32 rows, where 100 columns hold a word; serving takes its least width from the exported file.
_CRNN = RecognitionGeometry(height=32, min_width=100, buckets=(100, 160, 240, *_BUCKETS))
_SMALL = RecognitionGeometry(height=32, min_width=80, buckets=(80, 120, 160, 240, *_BUCKETS))
_RECOGNITION_EXCEPTIONS = {"CRNN_r34_vd": _CRNN, "MobileNetV3_small_ctc": _SMALL}


def recognition_geometry(model_name: str) -> RecognitionGeometry:
    """The geometry of a recognition model.

    Raises:
        KeyError: The model table has no such name.
        ValueError: The model is of another kind.
    """
    kind = lookup(model_name).kind
    if kind is not Kind.RECOGNITION:
        raise ValueError(f"{model_name} is a {kind} model, not a recognition model")
    return _RECOGNITION_EXCEPTIONS.get(model_name, _PP_OCR_RECOGNITION)


def detection_geometry(model_name: str) -> DetectionGeometry:
    """The geometry of a detection model.

    Raises:
        KeyError: The model table has no such name.
        ValueError: The model is of another kind.
    """
    kind = lookup(model_name).kind
    if kind is not Kind.DETECTION:
        raise ValueError(f"{model_name} is a {kind} model, not a detection model")
    return DetectionGeometry()


def geometry_for(model_name: str) -> Geometry:
    """The geometry of a model by its name in the model table.

    Raises:
        KeyError: The model table has no such name; the message names the nearest one.
    """
    kind = lookup(model_name).kind
    if kind is Kind.DETECTION:
        return detection_geometry(model_name)
    if kind is Kind.TABLE:
        from ocr_finetune_trainer.table_geometry import table_geometry

        return table_geometry(model_name)
    if kind is Kind.ORIENTATION:
        from ocr_finetune_trainer.orientation_geometry import ORIENTATION_GEOMETRY

        return ORIENTATION_GEOMETRY
    return recognition_geometry(model_name)
