"""NRTR's cross-entropy with smoothed labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import paddle

if TYPE_CHECKING:
    from paddle import Tensor

_SMOOTHING = 0.1  # PaddleOCR's NRTRLoss
_PADDING = 0


def nrtr_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy against 0.9 for the right class and the rest shared by all others, over all but padding.

    Written with the logits' sum and log-sum-exp, so that no one-hot matrix and no log-softmax of the size of the
    logits is ever held: with 18,385 classes each would take as much memory as the logits.

    Args:
        logits: (N, L - 1, classes).
        labels: (N, L or more) classes, from start to end, padded with 0.

    Returns:
        A scalar.
    """
    target = labels[:, 1 : logits.shape[1] + 1]
    logits = logits.astype("float32")
    counted = (target != _PADDING).astype("float32")
    classes = logits.shape[2]
    normaliser = paddle.logsumexp(logits, axis=2)
    right = paddle.take_along_axis(logits, target.unsqueeze(2), axis=2).squeeze(2) - normaliser
    total = logits.sum(axis=2) - classes * normaliser
    other = _SMOOTHING / (classes - 1)
    loss = -((1.0 - _SMOOTHING - other) * right + other * total)
    return (loss * counted).sum() / counted.sum()
