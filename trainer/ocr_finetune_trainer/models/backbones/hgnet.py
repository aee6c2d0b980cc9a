"""PP-HGNet, the backbone of PP-OCRv4's server models: stages of densely concatenated 3×3 convolutions.

Numbers and parameter names are those of PaddleOCR 3.0 (`ppocr/modeling/backbones/rec_hgnet.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import paddle
from paddle import nn

from ocr_finetune_trainer.models.backbones.pooling import pool_to_frames
from ocr_finetune_trainer.models.common import ConvNorm, Stride

if TYPE_CHECKING:
    from paddle import Tensor

_LAYERS = 6  # convolutions in a block of the small variant


@dataclass(frozen=True)
class Stage:
    """One stage: width of its convolutions, of its output, how many blocks, and the stride it begins with, if any."""

    mid: int
    out: int
    blocks: int
    stride: Stride | None


RECOGNITION = (
    Stage(128, 256, 1, (2, 1)),
    Stage(160, 512, 1, (1, 2)),
    Stage(192, 768, 2, (2, 1)),
    Stage(224, 1024, 1, (2, 1)),
)
DETECTION = (Stage(128, 256, 1, None), Stage(160, 512, 1, 2), Stage(192, 768, 2, 2), Stage(224, 1024, 1, 2))
_STEM = (64, 64, 128)


def kaiming_start(model: nn.Layer) -> None:
    """Starts every convolution of a backbone as PP-HGNet does."""
    for layer in model.sublayers():
        if isinstance(layer, nn.Conv2D):
            nn.initializer.KaimingNormal()(layer.weight)


class _Attention(nn.Layer):
    # effective squeeze and excitation: https://arxiv.org/abs/1911.06667
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2D(1)
        self.conv = nn.Conv2D(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * nn.functional.sigmoid(self.conv(self.pool(x)))


class _Block(nn.Layer):
    def __init__(self, in_channels: int, stage: Stage, *, residual: bool) -> None:
        super().__init__()
        self.residual = residual
        widths = [in_channels, *[stage.mid] * _LAYERS]
        self.layers = nn.LayerList(
            ConvNorm(before, stage.mid, kernel=3, activation=nn.ReLU()) for before in widths[:-1]
        )
        self.aggregation_conv = ConvNorm(sum(widths), stage.out, kernel=1, activation=nn.ReLU())
        self.att = _Attention(stage.out)

    def forward(self, x: Tensor) -> Tensor:
        outputs = [x]
        for layer in self.layers:
            outputs.append(layer(outputs[-1]))
        y = self.att(self.aggregation_conv(paddle.concat(outputs, axis=1)))
        return x + y if self.residual else y


class _Stage(nn.Layer):
    def __init__(self, in_channels: int, stage: Stage) -> None:
        super().__init__()
        self.downsample = (
            None
            if stage.stride is None
            else ConvNorm(in_channels, in_channels, kernel=3, stride=stage.stride, groups=in_channels)
        )
        self.blocks = nn.Sequential(
            *[_Block(stage.out if i else in_channels, stage, residual=i > 0) for i in range(stage.blocks)]
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x if self.downsample is None else self.downsample(x))


class _HGNet(nn.Layer):
    def __init__(self, stages: tuple[Stage, ...]) -> None:
        super().__init__()
        widths = (3, *_STEM)
        self.stem = nn.Sequential(
            *[
                ConvNorm(before, after, kernel=3, stride=1 if i else 2, activation=nn.ReLU())
                for i, (before, after) in enumerate(pairwise(widths))
            ]
        )
        channels = [_STEM[-1], *[stage.out for stage in stages]]
        self.stages = nn.LayerList(_Stage(before, stage) for before, stage in zip(channels, stages, strict=False))
        kaiming_start(self)


class HGNetRec(_HGNet):
    """PP-HGNet-small for text lines.

    Attributes:
        out_channels: Channels of the output, 1024.
    """

    def __init__(self) -> None:
        super().__init__(RECOGNITION)
        self.out_channels = RECOGNITION[-1].out

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 48, W) to (N, out_channels, 1, frames)."""
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return pool_to_frames(x, training=self.training)


class HGNetDet(_HGNet):
    """PP-HGNet-small for pages.

    Attributes:
        out_channels: Channels of the four maps.
    """

    def __init__(self) -> None:
        super().__init__(DETECTION)
        self.pool = nn.MaxPool2D(kernel_size=3, stride=2, padding=1)
        self.out_channels = [stage.out for stage in DETECTION]

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, 3, H, W) to four maps at 1/4, 1/8, 1/16 and 1/32 of the size."""
        x = self.pool(self.stem(x))
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps
