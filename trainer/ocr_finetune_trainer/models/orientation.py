"""The text-line orientation classifier: PP-LCNet whose strides keep the width, and two classes.

Layout and numbers are those of PaddleClas (`ppcls/configs/PULC/textline_orientation`), so that official weights load.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from paddle import nn

from ocr_finetune_trainer.models.backbones.pplcnet import STAGES, PPLCNet

if TYPE_CHECKING:
    from collections.abc import Mapping

    from paddle import Tensor

_EXPANDED = 1280  # class_expand
_DROPOUT = 0.2
CLASSES = ("0_degree", "180_degree")
# Lines are wide and low: only the height is halved.
_LINES = tuple(tuple(unit._replace(stride=(2, 1) if unit.stride == 2 else 1) for unit in stage) for stage in STAGES)


class OrientationModel(PPLCNet):
    """Says whether a line stands on its head; parameters `conv1.*`, `blocks2.*` …, `last_conv.weight`, `fc.*`.

    Args:
        scale: Multiplier of all widths.
    """

    def __init__(self, *, scale: float) -> None:
        super().__init__(scale=scale, stages=_LINES)
        self.avg_pool = nn.AdaptiveAvgPool2D(1)
        self.last_conv = nn.Conv2D(self.out_channels[-1], _EXPANDED, 1, bias_attr=False)
        self.hardswish = nn.Hardswish()
        self.dropout = nn.Dropout(_DROPOUT)
        self.fc = nn.Linear(_EXPANDED, len(CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        """Lines (N, 3, 80, 160) to the probabilities of 0 and 180 degrees (N, 2)."""
        return nn.functional.softmax(self._logits(x), axis=1)

    def train_forward(self, x: Tensor, batch: Mapping[str, Tensor]) -> dict[str, Any]:  # noqa: ARG002 - all models take the batch
        """Lines (N, 3, 80, 160) to `logits` (N, 2)."""
        return {"logits": self._logits(x)}

    def _logits(self, x: Tensor) -> Tensor:
        pooled = self.avg_pool(super().forward(x)[-1])
        return self.fc(self.dropout(self.hardswish(self.last_conv(pooled))).flatten(1))
