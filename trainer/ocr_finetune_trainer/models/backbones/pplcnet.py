"""PP-LCNet (https://arxiv.org/abs/2109.15099): depth-wise separable convolutions, hard-swish, attention at the end.

Table recognition takes the maps of its last four stages, the text-line classifier adds a head of its own. Parameter
names are those that PaddleOCR and PaddleClas share: `conv1.*`, `blocks2.0.dw_conv.*`, `blocks6.0.se.*` and so on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import paddle
from paddle import nn

from ocr_finetune_trainer.models.common import ConvNorm, SqueezeExcite, Stride, make_divisible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from paddle import Tensor


class Unit(NamedTuple):
    """One row of the paper's table 1, before scaling."""

    kernel: int
    out: int
    stride: Stride
    attention: bool = False


# Table 1 of the paper; the first convolution gives 16 channels and halves the size.
STAGES: tuple[tuple[Unit, ...], ...] = (
    (Unit(3, 32, 1),),
    (Unit(3, 64, 2), Unit(3, 64, 1)),
    (Unit(3, 128, 2), Unit(3, 128, 1)),
    (Unit(3, 256, 2), *(Unit(5, 256, 1),) * 5),
    (Unit(5, 512, 2, attention=True), Unit(5, 512, 1, attention=True)),
)


class SeparableUnit(nn.Layer):
    """A filter a channel, attention if asked for, then 1×1; parameters `dw_conv.*`, `se.*`, `pw_conv.*`.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel: Side of the depth-wise kernel.
        stride: Stride of the depth-wise convolution.
        attention: Whether channels are weighed between the two convolutions.
    """

    def __init__(self, in_channels: int, out_channels: int, *, kernel: int, stride: Stride, attention: bool) -> None:
        super().__init__()
        self.dw_conv = _convolution(in_channels, in_channels, kernel=kernel, stride=stride, groups=in_channels)
        self.se = SqueezeExcite(in_channels) if attention else None
        self.pw_conv = _convolution(in_channels, out_channels, kernel=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, out_channels, H', W')."""
        x = self.dw_conv(x)
        if self.se is not None:
            x = self.se(x)
        return self.pw_conv(x)


def _convolution(in_channels: int, out_channels: int, *, kernel: int, stride: Stride = 1, groups: int = 1) -> ConvNorm:
    return ConvNorm(
        in_channels,
        out_channels,
        kernel=kernel,
        stride=stride,
        groups=groups,
        activation=nn.Hardswish(),
        weight_attr=paddle.ParamAttr(initializer=nn.initializer.KaimingNormal()),
    )


class PPLCNet(nn.Layer):
    """The convolutions of PP-LCNet, without a classifier.

    Args:
        scale: Multiplier of all widths.
        stages: Rows of the table, a tuple a stage; the stages are named `blocks2` to `blocks6`.

    Attributes:
        out_channels: Channels of the last four stages' maps, at 1/4, 1/8, 1/16 and 1/32 of the picture's size.
    """

    def __init__(self, *, scale: float, stages: Sequence[Sequence[Unit]] = STAGES) -> None:
        super().__init__()
        channels = make_divisible(16 * scale, divisor=8)
        self.conv1 = _convolution(3, channels, kernel=3, stride=2)
        widths = []
        self._names = [f"blocks{number}" for number in range(2, 2 + len(stages))]
        for name, units in zip(self._names, stages, strict=True):
            blocks = []
            for unit in units:
                out = make_divisible(unit.out * scale, divisor=8)
                blocks.append(
                    SeparableUnit(channels, out, kernel=unit.kernel, stride=unit.stride, attention=unit.attention)
                )
                channels = out
            setattr(self, name, nn.Sequential(*blocks))
            widths.append(channels)
        self.out_channels = tuple(widths[1:])

    def forward(self, x: Tensor) -> list[Tensor]:
        """Pictures (N, 3, H, W) to the maps of all stages but the first, the largest first."""
        x = self.conv1(x)
        maps = []
        for name in self._names:
            x = getattr(self, name)(x)
            maps.append(x)
        return maps[1:]
