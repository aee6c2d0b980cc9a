"""SLANet (https://arxiv.org/abs/2210.05391): what its two variants share, backbone to head."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import paddle
from paddle import nn

from ocr_finetune_trainer.models.backbones.pplcnet import PPLCNet
from ocr_finetune_trainer.models.heads.sla import SLAHead
from ocr_finetune_trainer.models.necks.csp_pan import CSPPAN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from paddle import Tensor


class TableModel(nn.Layer):
    """Table structure recognition; parameters `backbone.*`, `neck.*`, `head.*`.

    Args:
        classes: Structure tokens with start and end.
        box_numbers: Numbers of a cell's box, 4 or 8.
        scale: Multiplier of the backbone's widths.
        level: Which of the neck's maps the decoder reads: 3 is at 1/32 of the picture's size, 2 at 1/16.
    """

    def __init__(self, *, classes: int, box_numbers: int, scale: float = 1.0, level: int = 3) -> None:
        super().__init__()
        self.level = level
        self.backbone = PPLCNet(scale=scale)
        self.neck = CSPPAN(self.backbone.out_channels, out_channels=96)
        self.head = SLAHead(self.neck.out_channels, classes=classes, box_numbers=box_numbers)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Pictures (N, 3, H, W) to `loc_preds` (N, steps, box_numbers) and `structure_probs` (N, steps, classes)."""
        outputs: dict[str, Tensor] = self.head(self.features(x))
        return outputs

    def features(self, x: Tensor) -> Tensor:
        """What the decoder reads of pictures (N, 3, H, W): (N, C, h, w)."""
        found: Tensor = self.neck(self.backbone(x))[self.level]
        return found

    def train_forward(self, x: Tensor, batch: Mapping[str, Tensor]) -> dict[str, Any]:
        """Decodes with the true tokens.

        Args:
            x: Pictures (N, 3, H, W).
            batch: `structure`, classes from the start on, int64 (N, L); `length`, tokens of each structure without
                start and end, int64 (N,). With `steps` int64 (N,), all equal, so many steps are decoded, which makes
                them the same on all ranks.

        Returns:
            `structure_probs`: logits (N, steps, classes), `loc_preds`: (N, steps, box_numbers); steps is the longest
            structure of the batch + 1.
        """
        steps = int(batch["steps"][0]) if "steps" in batch else int(batch["length"].max()) + 1
        features = self.features(x)
        outputs: dict[str, Any] = self.head.teach(features, structure=batch["structure"].astype("int64"), steps=steps)
        return outputs


class ServedTable(nn.Layer):
    """A table model as `paddleocr` 3.7 reads it: boxes first, each as four corners.

    `paddleocr` multiplies boxes with eight factors, so that a model of four numbers a box, as SLANet is, fails there
    with a bare broadcasting error. The corners say the same.

    Args:
        model: The model, in evaluation mode.
    """

    def __init__(self, model: TableModel) -> None:
        super().__init__()
        self.model = model
        self.two_corners = model.head.box_numbers == 4

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures (N, 3, H, W) to boxes (N, steps, 8) and probabilities (N, steps, classes)."""
        outputs = self.model(x)
        boxes = outputs["loc_preds"]
        if self.two_corners:
            left, top, right, bottom = paddle.split(boxes, 4, axis=2)
            boxes = paddle.concat([left, top, right, top, right, bottom, left, bottom], axis=2)
        return boxes, outputs["structure_probs"]
