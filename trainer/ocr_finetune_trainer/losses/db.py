"""The loss of DB detectors (https://arxiv.org/abs/1911.08947), with the terms and weights of PaddleOCR.

PaddleOCR balances background against text by sorting the loss of every background pixel. Its shrink term is a Dice loss
though, one number for the whole batch, so the sort orders equal values: what remains of it is a factor just under 1.
That factor is computed here as it stands; it keeps a batch without text at loss 0, and asks nothing of the host. With
the cross entropy of each pixel in its place, the balance is what its name says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import paddle
from paddle.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Mapping

    from paddle import Tensor

_EPSILON = 1e-6


def dice_loss(predicted: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
    """One minus the Dice coefficient over all pixels of a batch.

    Args:
        predicted: (N, H, W) in [0, 1].
        truth: (N, H, W), 0 or 1.
        mask: (N, H, W), 0 where a pixel doesn't count.

    Returns:
        A scalar in [0, 1].
    """
    overlap = (predicted * truth * mask).sum()
    union = (predicted * mask).sum() + (truth * mask).sum() + _EPSILON
    return 1.0 - 2.0 * overlap / union


def balanced_dice_loss(predicted: Tensor, truth: Tensor, mask: Tensor, *, negative_ratio: float = 3.0) -> Tensor:
    """The Dice loss times the share that PaddleOCR's hard-negative balance leaves of it.

    Args:
        predicted: (N, H, W) in [0, 1].
        truth: (N, H, W), 0 or 1.
        mask: (N, H, W), 0 where a pixel doesn't count.
        negative_ratio: Background pixels counted for each text pixel.

    Returns:
        A scalar in [0, 1]; 0 if the batch has no text pixel.
    """
    positives = (truth * mask).sum()
    negatives = paddle.minimum(((1.0 - truth) * mask).sum(), negative_ratio * positives)
    counted = positives + negatives
    return dice_loss(predicted, truth, mask) * counted / (counted + _EPSILON)


def balanced_cross_entropy(predicted: Tensor, truth: Tensor, mask: Tensor, *, negative_ratio: float = 3.0) -> Tensor:
    """The mean cross entropy of all text pixels and of the hardest background pixels (PaddleOCR's BCELoss).

    Args:
        predicted: (N, H, W) in [0, 1].
        truth: (N, H, W), 0 or 1.
        mask: (N, H, W), 0 where a pixel doesn't count.
        negative_ratio: Background pixels counted for each text pixel.

    Returns:
        A scalar; 0 if the batch has no text pixel.
    """
    positive, negative = truth * mask, (1.0 - truth) * mask
    count = paddle.floor(positive.sum())
    hardest = paddle.floor(paddle.minimum(negative.sum(), negative_ratio * count))
    entropy = F.binary_cross_entropy(predicted, truth, reduction="none")
    ranked = (negative * entropy).flatten().sort(descending=True)
    # how many count is known to the device alone: a mask asks nothing of the host
    chosen = ranked * (paddle.arange(ranked.shape[0], dtype="float32") < hardest).astype("float32")
    return ((positive * entropy).sum() + chosen.sum()) / (count + hardest + _EPSILON)


def masked_l1_loss(predicted: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
    """The mean absolute difference over the pixels that count; all (N, H, W), the result a scalar."""
    return ((predicted - truth).abs() * mask).sum() / (mask.sum() + _EPSILON)


@dataclass(frozen=True, kw_only=True)
class DBLoss:
    """Shrink map, threshold map and binary map together.

    Attributes:
        shrink_weight: Weight of the shrink map's term, alpha in PaddleOCR.
        threshold_weight: Weight of the threshold map's term, beta in PaddleOCR.
        main_loss: What the shrink map, and the refined one, are compared by.
        negative_ratio: Background pixels counted for each text pixel, ohem_ratio in PaddleOCR.
    """

    shrink_weight: float = 5.0
    threshold_weight: float = 10.0
    main_loss: Literal["DiceLoss", "BCELoss"] = "DiceLoss"
    negative_ratio: float = 3.0

    def __call__(self, outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Computes the loss of a batch.

        Args:
            outputs: `maps` (N, 3, H, W) and, of a head with refinement, `cbn_maps` (N, 1, H, W).
            batch: `shrink_map`, `shrink_mask`, `threshold_map`, `threshold_mask`, each (N, H, W).

        Returns:
            Scalars: `loss`, their sum, and its terms `loss_shrink_maps`, `loss_threshold_maps`, `loss_binary_maps` and
            `loss_cbn`, which is 0 without refinement.
        """
        maps = outputs["maps"].astype("float32")
        shrink, threshold, binary = maps[:, 0], maps[:, 1], maps[:, 2]
        truth, mask = batch["shrink_map"].astype("float32"), batch["shrink_mask"].astype("float32")
        terms = {
            "loss_shrink_maps": self.shrink_weight * self._text(shrink, truth, mask),
            "loss_threshold_maps": self.threshold_weight
            * masked_l1_loss(
                threshold, batch["threshold_map"].astype("float32"), batch["threshold_mask"].astype("float32")
            ),
            "loss_binary_maps": dice_loss(binary, truth, mask),
            "loss_cbn": paddle.zeros([]),
        }
        if "cbn_maps" in outputs:
            terms["loss_cbn"] = self._text(outputs["cbn_maps"][:, 0].astype("float32"), truth, mask)
        loss = terms["loss_shrink_maps"] + terms["loss_threshold_maps"] + terms["loss_binary_maps"] + terms["loss_cbn"]
        return {"loss": loss, **terms}

    def _text(self, predicted: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
        compare = balanced_dice_loss if self.main_loss == "DiceLoss" else balanced_cross_entropy
        return compare(predicted, truth, mask, negative_ratio=self.negative_ratio)
