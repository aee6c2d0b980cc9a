"""The CTC head: one linear layer from a frame to its classes `[blank, dictionary…, space]`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import paddle
from paddle import nn
from paddle.regularizer import L2Decay

if TYPE_CHECKING:
    from paddle import Tensor


class CTCHead(nn.Layer):
    """Classifies each frame; parameters `fc.weight` (in_channels, classes) and `fc.bias` (classes).

    Args:
        in_channels: Width of a frame.
        classes: Characters of the dictionary, with the space if used, and the blank.
        decay: Weight decay of this layer alone, instead of the optimizer's.
    """

    def __init__(self, in_channels: int, classes: int, *, decay: float) -> None:
        super().__init__()
        bound = 1.0 / math.sqrt(in_channels)

        def attribute() -> paddle.ParamAttr:
            return paddle.ParamAttr(initializer=nn.initializer.Uniform(-bound, bound), regularizer=L2Decay(decay))

        self.fc = nn.Linear(in_channels, classes, weight_attr=attribute(), bias_attr=attribute())

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, in_channels) to logits (N, T, classes)."""
        return self.fc(x)
