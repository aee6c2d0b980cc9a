"""MobileNetV3 (https://arxiv.org/abs/1905.02244) as PaddleOCR lays it out, and its variant for text lines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from paddle import nn

from ocr_finetune_trainer.models.common import ConvNorm, SqueezeExcite, Stride, make_divisible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from paddle import Tensor


@dataclass(frozen=True)
class Unit:
    """One row of the paper's tables 1 and 2, before scaling."""

    kernel: int
    expanded: int
    out: int
    attention: bool
    activation: type[nn.Layer]
    stride: Stride


class ResidualUnit(nn.Layer):
    """Inverted residual: expand by 1×1, filter each channel, project back by 1×1.

    Args:
        in_channels: Channels of the input.
        unit: The row of the table.
        scale: Multiplier of all widths.
    """

    def __init__(self, in_channels: int, unit: Unit, *, scale: float) -> None:
        super().__init__()
        expanded = make_divisible(scale * unit.expanded, divisor=8)
        self.out_channels = make_divisible(scale * unit.out, divisor=8)
        self.residual = unit.stride == 1 and in_channels == self.out_channels
        self.expand_conv = ConvNorm(in_channels, expanded, kernel=1, activation=unit.activation())
        self.bottleneck_conv = ConvNorm(
            expanded,
            expanded,
            kernel=unit.kernel,
            stride=unit.stride,
            groups=expanded,
            activation=unit.activation(),
        )
        self.mid_se = SqueezeExcite(expanded, slope=0.2) if unit.attention else None
        self.linear_conv = ConvNorm(expanded, self.out_channels, kernel=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, out_channels, H', W')."""
        y = self.bottleneck_conv(self.expand_conv(x))
        if self.mid_se is not None:
            y = self.mid_se(y)
        y = self.linear_conv(y)
        return x + y if self.residual else y


class MobileNetV3Rec(nn.Layer):
    """MobileNetV3 for text lines: the height shrinks to 1, the width is kept where a unit's stride says so.

    Args:
        units: The table's rows.
        scale: Multiplier of all widths.
        last: Channels of the last convolution before scaling; 576 in the paper's small net.

    Attributes:
        out_channels: Channels of the output.
    """

    def __init__(self, units: Sequence[Unit], *, scale: float, last: int) -> None:
        super().__init__()
        channels = make_divisible(16 * scale, divisor=8)
        self.conv1 = ConvNorm(3, channels, kernel=3, stride=2, activation=nn.Hardswish())
        blocks = []
        for unit in units:
            blocks.append(ResidualUnit(channels, unit, scale=scale))
            channels = blocks[-1].out_channels
        self.blocks = nn.Sequential(*blocks)
        self.out_channels = make_divisible(scale * last, divisor=8)
        self.conv2 = ConvNorm(channels, self.out_channels, kernel=1, activation=nn.Hardswish())
        self.pool = nn.MaxPool2D(kernel_size=2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, out_channels, H', W'), where the strides make H' 1."""
        return self.pool(self.conv2(self.blocks(self.conv1(x))))
