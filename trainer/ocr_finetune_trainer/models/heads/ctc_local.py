"""The CTC head of PP-OCRv6 tiny: convolutions over neighbouring frames and two linear layers, instead of attention."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import paddle
from paddle import nn
from paddle.regularizer import L2Decay

if TYPE_CHECKING:
    from paddle import Tensor

_KERNEL = 5


def _linear(in_features: int, out_features: int, *, decay: float) -> nn.Linear:
    bound = 1.0 / math.sqrt(in_features)

    def attribute() -> paddle.ParamAttr:
        return paddle.ParamAttr(initializer=nn.initializer.Uniform(-bound, bound), regularizer=L2Decay(decay))

    return nn.Linear(in_features, out_features, weight_attr=attribute(), bias_attr=attribute())


class LocalCTCHead(nn.Layer):
    """Classifies each frame by what lies within two frames of it; parameters `guide_layer.*`, `fc1.*`, `fc2.*`.

    Args:
        in_channels: Width of a frame.
        classes: Characters of the dictionary, with the space if used, and the blank.
        hidden: Width between the linear layers.
        decay: Weight decay of the linear layers, instead of the optimizer's.
    """

    def __init__(self, in_channels: int, classes: int, *, hidden: int, decay: float) -> None:
        super().__init__()
        # PaddleOCR's name for it; it has nothing to do with the guided branch
        self.guide_layer = nn.Sequential(
            nn.Conv1D(in_channels, in_channels, _KERNEL, padding=_KERNEL // 2, groups=in_channels, bias_attr=False),
            nn.BatchNorm1D(in_channels),
            nn.Hardswish(),
            nn.Conv1D(in_channels, in_channels, 1, bias_attr=False),
            nn.BatchNorm1D(in_channels),
            nn.Hardswish(),
        )
        self.fc1 = _linear(in_channels, hidden, decay=decay)
        self.fc2 = _linear(hidden, classes, decay=decay)

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, in_channels) to logits (N, T, classes)."""
        local = self.guide_layer(x.transpose([0, 2, 1])).transpose([0, 2, 1])
        return self.fc2(self.fc1(local))
