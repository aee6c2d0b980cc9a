"""SAR's cross-entropy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paddle import nn

if TYPE_CHECKING:
    from paddle import Tensor


def sar_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each next character, over all but padding.

    Args:
        logits: (N, L - 1, characters + 2); padding, the class after the last, is never predicted.
        labels: (N, L) classes from start to end, padded with `characters + 2`.

    Returns:
        A scalar.
    """
    classes = logits.shape[2]
    return nn.functional.cross_entropy(
        logits.astype("float32").reshape([-1, classes]),
        labels[:, 1:].astype("int64").reshape([-1]),
        ignore_index=classes,
        reduction="mean",
    )
