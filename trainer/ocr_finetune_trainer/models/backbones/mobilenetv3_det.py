"""MobileNetV3-large for pages: the same units as for text lines, with four outputs at a quarter to a thirty-second."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from paddle import nn

from ocr_finetune_trainer.models.backbones.mobilenetv3 import ResidualUnit, Unit
from ocr_finetune_trainer.models.common import ConvNorm, make_divisible

if TYPE_CHECKING:
    from paddle import Tensor

_relu = partial(Unit, activation=nn.ReLU)
_hardswish = partial(Unit, activation=nn.Hardswish)

# Table 1 of https://arxiv.org/abs/1905.02244, cut where the resolution halves: one group an output.
_STAGES = (
    (
        _relu(kernel=3, expanded=16, out=16, attention=False, stride=1),
        _relu(kernel=3, expanded=64, out=24, attention=False, stride=2),
        _relu(kernel=3, expanded=72, out=24, attention=False, stride=1),
    ),
    (
        _relu(kernel=5, expanded=72, out=40, attention=True, stride=2),
        _relu(kernel=5, expanded=120, out=40, attention=True, stride=1),
        _relu(kernel=5, expanded=120, out=40, attention=True, stride=1),
    ),
    (
        _hardswish(kernel=3, expanded=240, out=80, attention=False, stride=2),
        _hardswish(kernel=3, expanded=200, out=80, attention=False, stride=1),
        _hardswish(kernel=3, expanded=184, out=80, attention=False, stride=1),
        _hardswish(kernel=3, expanded=184, out=80, attention=False, stride=1),
        _hardswish(kernel=3, expanded=480, out=112, attention=True, stride=1),
        _hardswish(kernel=3, expanded=672, out=112, attention=True, stride=1),
    ),
    (
        _hardswish(kernel=5, expanded=672, out=160, attention=True, stride=2),
        _hardswish(kernel=5, expanded=960, out=160, attention=True, stride=1),
        _hardswish(kernel=5, expanded=960, out=160, attention=True, stride=1),
    ),
)
_STEM = 16
_LAST = 960


class MobileNetV3Det(nn.Layer):
    """MobileNetV3-large with a feature map of each resolution; parameters `conv.*` and `stage0.*` to `stage3.*`.

    Args:
        scale: Multiplier of all widths.
        attention: Whether the table's squeeze-and-excitation units are kept. PP-OCRv2 and v3 drop them: they cost more
            time on a page than they gain.

    Attributes:
        out_channels: Channels of the four outputs.
    """

    def __init__(self, *, scale: float, attention: bool) -> None:
        super().__init__()
        channels = make_divisible(_STEM * scale, divisor=8)
        self.conv = ConvNorm(3, channels, kernel=3, stride=2, activation=nn.Hardswish())
        self.out_channels: list[int] = []
        for index, units in enumerate(_STAGES):
            blocks: list[nn.Layer] = []
            for unit in units:
                blocks.append(
                    ResidualUnit(channels, replace(unit, attention=unit.attention and attention), scale=scale)
                )
                channels = blocks[-1].out_channels
            if index == len(_STAGES) - 1:
                last = make_divisible(_LAST * scale, divisor=8)
                blocks.append(ConvNorm(channels, last, kernel=1, activation=nn.Hardswish()))
                channels = last
            self.out_channels.append(channels)
            self.add_sublayer(f"stage{index}", nn.Sequential(*blocks))

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, 3, H, W) to four maps at H/4, H/8, H/16 and H/32."""
        x = self.conv(x)
        maps = []
        for stage in (self.stage0, self.stage1, self.stage2, self.stage3):
            x = stage(x)
            maps.append(x)
        return maps
