"""DB's head with auxiliary heads on the pyramid's levels, of PP-OCRv6: they train it and are left out of exports."""

from __future__ import annotations

from typing import TYPE_CHECKING

import paddle
from paddle import nn

from ocr_finetune_trainer.models.heads.db import DBHead, MapBranch, soft_step

if TYPE_CHECKING:
    from collections.abc import Sequence

    from paddle import Tensor

# Each level's name and how much smaller than the finest it is.
_LEVELS = (("p2", 1), ("p3", 2), ("p4", 4))


class SupervisedDBHead(DBHead):
    """Parameters as `DBHead`, and `aux_binarize_<level>.*`, `aux_thresh_<level>.*` for p2, p3 and p4.

    Args:
        in_channels: Channels of the pyramid's output and of its levels.
    """

    def __init__(self, in_channels: int) -> None:
        super().__init__(in_channels)
        for level, _ in _LEVELS:
            setattr(self, f"aux_binarize_{level}", MapBranch(in_channels))
            setattr(self, f"aux_thresh_{level}", MapBranch(in_channels))

    def train_on_levels(self, x: Tensor, levels: Sequence[Tensor]) -> dict[str, Tensor]:
        """All maps.

        Args:
            x: The fused map (N, C, H, W).
            levels: The levels at the same size, half and a quarter of it.

        Returns:
            `maps`, `aux_maps_p2`, `aux_maps_p3`, `aux_maps_p4`, each (N, 3, 4H, 4W).
        """
        outputs = self.train_forward(x)
        for number, (level, factor) in enumerate(_LEVELS):
            features = levels[number]
            if factor > 1:
                features = nn.functional.interpolate(
                    features, scale_factor=float(factor), mode="bilinear", align_corners=False
                )
            shrink = getattr(self, f"aux_binarize_{level}")(features)[0]
            threshold = getattr(self, f"aux_thresh_{level}")(features)[0]
            binary = soft_step(shrink, threshold, slope=self.step_slope)
            outputs[f"aux_maps_{level}"] = paddle.concat([shrink, threshold, binary], axis=1)
        return outputs
