"""How a recognition model is put together: backbone, neck, head, and what each returns in training and in use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from paddle import nn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from paddle import Tensor


class CTCModel(nn.Layer):
    """Backbone, neck and CTC head in a row; parameters `backbone.*`, `neck.*`, `head.*`.

    Args:
        backbone: Pictures to a feature map of height 1.
        neck: Feature map to a sequence.
        head: Sequence to logits.
    """

    def __init__(self, *, backbone: nn.Layer, neck: nn.Layer, head: nn.Layer) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = neck
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        """Pictures (N, 3, H, W) to class probabilities (N, T, classes)."""
        return nn.functional.softmax(self._logits(x), axis=2)

    def train_forward(self, x: Tensor, batch: Mapping[str, Tensor]) -> dict[str, Any]:  # noqa: ARG002 - all models take the batch
        """Pictures (N, 3, H, W) to `ctc`: logits (N, T, classes)."""
        return {"ctc": self._logits(x)}

    def _logits(self, x: Tensor) -> Tensor:
        return self.head(self.neck(self.backbone(x)))


class GuidedModel(nn.Layer):
    """Backbone and a head with a CTC branch and perhaps a guided one; parameters `backbone.*`, `head.*`.

    Args:
        backbone: Pictures to a feature map of height 1.
        head: `ocr_finetune_trainer.models.heads.guided.GuidedHead` or one with its two methods.
    """

    def __init__(self, *, backbone: nn.Layer, head: nn.Layer) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        """Pictures (N, 3, H, W) to class probabilities (N, T, classes) of the CTC branch."""
        return nn.functional.softmax(self.head(self.backbone(x)), axis=2)

    def train_forward(self, x: Tensor, batch: Mapping[str, Tensor]) -> dict[str, Any]:
        """Pictures (N, 3, H, W) and `label_gtc` (N, L) to the logits `ctc` and, with guidance, `gtc`."""
        outputs: dict[str, Any] = self.head.train_forward(self.backbone(x), batch)
        return outputs
