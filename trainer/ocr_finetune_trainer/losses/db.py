"""The loss of DB detectors (https://arxiv.org/abs/1911.08947), with the terms and weights of PaddleOCR.

PaddleOCR balances background against text by sorting the loss of every background pixel. Its shrink term is a Dice loss
though, one number for the whole batch, so the sort orders equal values: what remains of it is a factor just under 1.
That factor is computed here as it stands; it keeps a batch without text at loss 0, and asks nothing of the host.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import paddle

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


def masked_l1_loss(predicted: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
    """The mean absolute difference over the pixels that count; all (N, H, W), the result a scalar."""
    return ((predicted - truth).abs() * mask).sum() / (mask.sum() + _EPSILON)


class DBLoss:
    """Shrink map, threshold map and binary map together.

    Args:
        shrink_weight: Weight of the shrink map's term, alpha in PaddleOCR.
        threshold_weight: Weight of the threshold map's term, beta in PaddleOCR.
    """

    def __init__(self, *, shrink_weight: float = 5.0, threshold_weight: float = 10.0) -> None:
        self.shrink_weight = shrink_weight
        self.threshold_weight = threshold_weight

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
            "loss_shrink_maps": self.shrink_weight * balanced_dice_loss(shrink, truth, mask),
            "loss_threshold_maps": self.threshold_weight
            * masked_l1_loss(
                threshold, batch["threshold_map"].astype("float32"), batch["threshold_mask"].astype("float32")
            ),
            "loss_binary_maps": dice_loss(binary, truth, mask),
            "loss_cbn": paddle.zeros([]),
        }
        if "cbn_maps" in outputs:
            terms["loss_cbn"] = balanced_dice_loss(outputs["cbn_maps"][:, 0].astype("float32"), truth, mask)
        loss = terms["loss_shrink_maps"] + terms["loss_threshold_maps"] + terms["loss_binary_maps"] + terms["loss_cbn"]
        return {"loss": loss, **terms}
