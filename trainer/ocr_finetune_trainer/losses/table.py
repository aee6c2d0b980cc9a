"""The loss of SLANet: which token comes next, and where its cell lies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from paddle.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Mapping

    from paddle import Tensor


@dataclass(frozen=True, kw_only=True)
class TableLoss:
    """Cross entropy of the tokens plus the smooth L1 distance of the boxes.

    Attributes:
        structure_weight: Weight of the tokens.
        location_weight: Weight of the boxes; both are PaddleOCR's for SLANet.
    """

    structure_weight: float = 1.0
    location_weight: float = 2.0

    def __call__(self, outputs: Mapping[str, Any], batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compares the decoded steps with the targets that follow them.

        Args:
            outputs: `structure_probs` (N, steps, classes) logits, `loc_preds` (N, steps, numbers) in [0, 1].
            batch: `structure` int64 (N, L), `bboxes` float32 (N, L, numbers), `bbox_masks` float32 (N, L, 1): 1 where
                a token is a cell that has a box. L > steps.

        Returns:
            `loss`, `structure_loss`, `loc_loss`: scalars. Padding counts as tokens, as in PaddleOCR: without it a
            short structure of a batch would never learn to stay ended.
        """
        logits = outputs["structure_probs"].astype("float32")
        steps = logits.shape[1]
        targets = batch["structure"][:, 1 : steps + 1].astype("int64")
        structure = F.cross_entropy(logits, targets, reduction="mean") * self.structure_weight
        mask = batch["bbox_masks"][:, 1 : steps + 1].astype("float32")
        boxes = batch["bboxes"][:, 1 : steps + 1].astype("float32")
        distance = F.smooth_l1_loss(outputs["loc_preds"].astype("float32") * mask, boxes * mask, reduction="sum")
        location = distance * self.location_weight / (mask.sum() + 1e-12)
        return {"loss": structure + location, "structure_loss": structure, "loc_loss": location}
