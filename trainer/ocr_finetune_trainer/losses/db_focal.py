"""The loss of PP-OCRv6's detectors: Dice and focal loss together, of the fused map and of each level."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import paddle
from paddle.nn import functional as F

from ocr_finetune_trainer.losses.db import dice_loss, masked_l1_loss

if TYPE_CHECKING:
    from collections.abc import Mapping

    from paddle import Tensor

_EPSILON = 1e-6
# aux_weight_p2 to aux_weight_p4 of configs/det/PP-OCRv6
_LEVEL_WEIGHTS = (("p2", 0.4), ("p3", 0.3), ("p4", 0.2))


def focal_loss(predicted: Tensor, truth: Tensor, mask: Tensor, *, alpha: float, gamma: float) -> Tensor:
    """The focal loss (https://arxiv.org/abs/1708.02002) over the pixels that count.

    Args:
        predicted: (N, H, W) in [0, 1].
        truth: (N, H, W), 0 or 1.
        mask: (N, H, W), 0 where a pixel doesn't count.
        alpha: Weight of text pixels; background has 1 - alpha.
        gamma: How much easy pixels are discounted.

    Returns:
        A scalar.
    """
    clipped = paddle.clip(predicted, _EPSILON, 1.0 - _EPSILON)
    logit = paddle.log(clipped / (1.0 - clipped))
    entropy = F.binary_cross_entropy_with_logits(logit, truth, reduction="none")
    probability = F.sigmoid(logit)
    right = probability * truth + (1.0 - probability) * (1.0 - truth)
    weight = alpha * truth + (1.0 - alpha) * (1.0 - truth)
    return (weight * (1.0 - right) ** gamma * entropy * mask).sum() / (mask.sum() + _EPSILON)


@dataclass(frozen=True, kw_only=True)
class SupervisedDBLoss:
    """Shrink map, threshold map and binary map, of the fused map and of the levels.

    Attributes:
        shrink_weight: Weight of the shrink map's term, alpha in PaddleOCR.
        threshold_weight: Weight of the threshold map's term, beta in PaddleOCR.
        focal_alpha: See `focal_loss`.
        focal_gamma: See `focal_loss`.
    """

    shrink_weight: float = 5.0
    threshold_weight: float = 10.0
    focal_alpha: float = 0.25
    focal_gamma: float = 2.5

    def __call__(self, outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Computes the loss of a batch.

        Args:
            outputs: `maps` and `aux_maps_p2` to `aux_maps_p4`, each (N, 3, H, W).
            batch: `shrink_map`, `shrink_mask`, `threshold_map`, `threshold_mask`, each (N, H, W).

        Returns:
            Scalars: `loss`, the weighted sum; the terms of `maps`: `loss_shrink_maps`, `loss_threshold_maps`,
            `loss_binary_maps`, and `loss_cbn`, which is 0 here; the whole of each level, unweighted: `loss_aux_maps_p2`
            to `loss_aux_maps_p4`.
        """
        shrink, threshold, binary = self._terms(outputs["maps"], batch)
        losses = {
            "loss_shrink_maps": shrink,
            "loss_threshold_maps": threshold,
            "loss_binary_maps": binary,
            "loss_cbn": paddle.zeros([]),
        }
        loss = shrink + threshold + binary
        for level, weight in _LEVEL_WEIGHTS:
            whole = paddle.add_n(list(self._terms(outputs[f"aux_maps_{level}"], batch)))
            losses[f"loss_aux_maps_{level}"] = whole
            loss = loss + weight * whole
        return {"loss": loss, **losses}

    def _terms(self, maps: Tensor, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        maps = maps.astype("float32")
        truth, mask = batch["shrink_map"].astype("float32"), batch["shrink_mask"].astype("float32")
        border, border_mask = batch["threshold_map"].astype("float32"), batch["threshold_mask"].astype("float32")
        return (
            self.shrink_weight * self._text(maps[:, 0], truth, mask),
            self.threshold_weight * masked_l1_loss(maps[:, 1], border, border_mask),
            self._text(maps[:, 2], truth, mask),
        )

    def _text(self, predicted: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
        focal = focal_loss(predicted, truth, mask, alpha=self.focal_alpha, gamma=self.focal_gamma)
        return dice_loss(predicted, truth, mask) + focal
