"""Connectionist temporal classification, as PaddleOCR weighs it: the mean over samples, not over characters."""

from __future__ import annotations

from dataclasses import dataclass
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


def focal(losses: Tensor) -> Tensor:
    """Weighs the loss of each sample, (N,), by the square of the probability that its label is not read."""
    return losses * (1.0 - paddle.exp(-losses)) ** 2


@dataclass(frozen=True, kw_only=True)
class CTCLoss:
    """The loss of a model with a CTC head alone.

    Attributes:
        focal: Whether samples that are read already weigh less, `use_focal_loss` in PaddleOCR.
    """

    focal: bool = False

    def __call__(self, outputs: Mapping[str, Any], batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Reads `ctc` of the outputs, `label_ctc` (N, L) and `length` (N,) of the batch; returns `loss`, a scalar."""
        by_sample = ctc_loss(outputs["ctc"], labels=batch["label_ctc"], lengths=batch["length"])
        return {"loss": (focal(by_sample) if self.focal else by_sample).mean()}
