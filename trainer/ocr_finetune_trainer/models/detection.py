"""How a detection model is put together: backbone, neck, head, and what it returns in training and in use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paddle import nn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from paddle import Tensor

    from ocr_finetune_trainer.models.heads.db import DBHead


class DetectionModel(nn.Layer):
    """Backbone, pyramid and DB head in a row; parameters `backbone.*`, `neck.*`, `head.*`.

    Args:
        backbone: Pictures to four maps at a quarter to a thirty-second.
        neck: Four maps to one at a quarter.
        head: That one to probability maps.
    """

    def __init__(self, *, backbone: nn.Layer, neck: nn.Layer, head: DBHead) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = neck
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        """Pages (N, 3, H, W), sides multiples of 32, to the probability that a pixel is text's core (N, 1, H, W)."""
        return self.head(self.neck(self.backbone(x)))

    def train_forward(self, x: Tensor, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:  # noqa: ARG002 - all models take the batch
        """Pages (N, 3, H, W) to `maps` (N, 3, H, W) and what else the head's `train_forward` names."""
        outputs: dict[str, Tensor] = self.head.train_forward(self.neck(self.backbone(x)))
        return outputs
