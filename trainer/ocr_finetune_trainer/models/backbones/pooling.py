"""How the recognition backbones of PP-OCRv4 and v5 end: 3 × W / 4 becomes one row of frames."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paddle.nn import functional

if TYPE_CHECKING:
    from paddle import Tensor

_LEAST_TRAINING_FRAMES = 40  # a picture of 320 × 48


def pool_to_frames(x: Tensor, *, training: bool) -> Tensor:
    """Averages the rows, and pairs of columns.

    In training PaddleOCR always makes 40 frames, which is right at a width of 320 and leaves wider pictures fewer
    frames than serving gives them. Here wider ones get one frame for eight pixels in training too; narrower ones keep
    PaddleOCR's 40.

    Args:
        x: (N, C, 3, W); in training any height.
        training: Whether the model is in training mode.

    Returns:
        (N, C, 1, W // 2), in training (N, C, 1, max(40, W // 2)).
    """
    if not training:
        return functional.avg_pool2d(x, [3, 2])
    return functional.adaptive_avg_pool2d(x, [1, max(_LEAST_TRAINING_FRAMES, x.shape[3] // 2)])
