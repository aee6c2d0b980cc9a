"""Connectionist temporal classification, as PaddleOCR weighs it: the mean over samples, not over characters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import paddle
from paddle import nn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from paddle import Tensor


def ctc_loss(logits: Tensor, *, labels: Tensor, lengths: Tensor) -> Tensor:
    """The CTC loss of each sample.

    Args:
        logits: (N, T, classes), class 0 is the blank.
        labels: (N, L) classes, padded with anything.
        lengths: (N,) how many of a row of `labels` count. A label that needs more than T frames (repeated characters
            need a blank between them) has loss 0 and no gradient: preparation must have widened or rejected it.

    Returns:
        (N,) float32.
    """
    frames = paddle.full([logits.shape[0]], logits.shape[1], dtype="int64")
    return nn.functional.ctc_loss(
        logits.astype("float32").transpose([1, 0, 2]),
        labels.astype("int32"),
        frames,
        lengths.astype("int64"),
        blank=0,
        reduction="none",
    )


class CTCLoss:
    """The loss of a model with a CTC head alone."""

    def __call__(self, outputs: Mapping[str, Any], batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Reads `ctc` of the outputs, `label_ctc` (N, L) and `length` (N,) of the batch; returns `loss`, a scalar."""
        return {"loss": ctc_loss(outputs["ctc"], labels=batch["label_ctc"], lengths=batch["length"]).mean()}
