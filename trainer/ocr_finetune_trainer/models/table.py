"""Table models: what all of them do, and SLANet (https://arxiv.org/abs/2210.05391), which has two variants."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import paddle
from paddle import nn

from ocr_finetune_trainer.models.backbones.pplcnet import PPLCNet
from ocr_finetune_trainer.models.heads.sla import SLAHead
from ocr_finetune_trainer.models.necks.csp_pan import CSPPAN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from paddle import Tensor

    from ocr_finetune_trainer.models.heads.greedy import GreedyHead


class TableModel(nn.Layer):
    """Table structure recognition.

    Args:
        head: Reads tokens and boxes from what `features` gives.
    """

    def __init__(self, head: GreedyHead) -> None:
        super().__init__()
        self.head = head

    @abstractmethod
    def features(self, x: Tensor) -> Tensor:
        """What the head reads of pictures (N, 3, H, W)."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Pictures (N, 3, H, W) to `loc_preds` (N, steps, box_numbers) and `structure_probs` (N, steps, classes)."""
        outputs: dict[str, Tensor] = self.head(self.features(x))
        return outputs

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


class SLANetModel(TableModel):
    """SLANet's parts; parameters `backbone.*`, `neck.*`, `head.*`.

    Args:
        classes: Structure tokens with start and end.
        box_numbers: Numbers of a cell's box, 4 or 8.
    """

    def __init__(self, *, classes: int, box_numbers: int) -> None:
        backbone = PPLCNet(scale=1.0)
        neck = CSPPAN(backbone.out_channels, out_channels=96)
        super().__init__(SLAHead(neck.out_channels, classes=classes, box_numbers=box_numbers))
        self.backbone = backbone
        self.neck = neck

    def features(self, x: Tensor) -> Tensor:
        """The coarsest map of pictures (N, 3, H, W): (N, C, H/32, W/32)."""
        found: Tensor = self.neck(self.backbone(x))[-1]
        return found


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
