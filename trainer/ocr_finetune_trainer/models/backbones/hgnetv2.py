"""PP-HGNetV2-B4, the backbone of PP-OCRv5's server models.

Numbers and parameter names are those of PaddleOCR 3.0 (`ppocr/modeling/backbones/rec_pphgnetv2.py`). The layers of the
classifier it was trained as (`last_conv`, `fc`) are in the files too; they take no part in anything here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import paddle
from paddle import nn

from ocr_finetune_trainer.models.backbones.hgnet import kaiming_start
from ocr_finetune_trainer.models.backbones.pooling import pool_to_frames
from ocr_finetune_trainer.models.common import ConvNorm, Stride

if TYPE_CHECKING:
    from paddle import Tensor

_LAYERS = 6  # convolutions in a block
_STEM = (32, 48)
_CLASSIFIER = 2048
_IMAGENET = 1000


@dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
        mid: Width of its convolutions.
        out: Width of its output.
        blocks: How many blocks.
        kernel: Side of the kernels.
        light: Whether each convolution is a 1×1 and a depth-wise one.
        stride: What the stage begins with, if anything.
    """

    mid: int
    out: int
    blocks: int
    kernel: int
    light: bool
    stride: Stride | None


def _stages(*strides: Stride | None) -> tuple[Stage, ...]:
    return (
        Stage(48, 128, 1, kernel=3, light=False, stride=strides[0]),
        Stage(96, 512, 1, kernel=3, light=False, stride=strides[1]),
        Stage(192, 1024, 3, kernel=5, light=True, stride=strides[2]),
        Stage(384, 2048, 1, kernel=5, light=True, stride=strides[3]),
    )


RECOGNITION = _stages((2, 1), (1, 2), (2, 1), (2, 1))
DETECTION = _stages(None, 2, 2, 2)


class _Light(nn.Layer):
    def __init__(self, in_channels: int, out_channels: int, *, kernel: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(in_channels, out_channels, kernel=1)
        self.conv2 = ConvNorm(out_channels, out_channels, kernel=kernel, groups=out_channels, activation=nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.conv1(x))


class _Stem(nn.Layer):
    def __init__(self, *, last_stride: int) -> None:
        super().__init__()
        mid, out = _STEM
        self.stem1 = ConvNorm(3, mid, kernel=3, stride=2, activation=nn.ReLU())
        self.stem2a = ConvNorm(mid, mid // 2, kernel=2, padding="SAME", activation=nn.ReLU())
        self.stem2b = ConvNorm(mid // 2, mid, kernel=2, padding="SAME", activation=nn.ReLU())
        self.stem3 = ConvNorm(2 * mid, mid, kernel=3, stride=last_stride, activation=nn.ReLU())
        self.stem4 = ConvNorm(mid, out, kernel=1, activation=nn.ReLU())
        self.pool = nn.MaxPool2D(kernel_size=2, stride=1, ceil_mode=True, padding="SAME")

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem1(x)
        both = paddle.concat([self.pool(x), self.stem2b(self.stem2a(x))], axis=1)
        return self.stem4(self.stem3(both))


class _Block(nn.Layer):
    def __init__(self, in_channels: int, stage: Stage, *, residual: bool) -> None:
        super().__init__()
        self.residual = residual
        widths = [in_channels, *[stage.mid] * _LAYERS]
        if stage.light:
            layers = [_Light(before, stage.mid, kernel=stage.kernel) for before in widths[:-1]]
        else:
            layers = [ConvNorm(before, stage.mid, kernel=stage.kernel, activation=nn.ReLU()) for before in widths[:-1]]
        self.layers = nn.LayerList(layers)
        self.aggregation_squeeze_conv = ConvNorm(sum(widths), stage.out // 2, kernel=1, activation=nn.ReLU())
        self.aggregation_excitation_conv = ConvNorm(stage.out // 2, stage.out, kernel=1, activation=nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        outputs = [x]
        for layer in self.layers:
            outputs.append(layer(outputs[-1]))
        y = self.aggregation_excitation_conv(self.aggregation_squeeze_conv(paddle.concat(outputs, axis=1)))
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


class _HGNetV2(nn.Layer):
    def __init__(self, stages: tuple[Stage, ...], *, stem_stride: int) -> None:
        super().__init__()
        self.stem = _Stem(last_stride=stem_stride)
        channels = [_STEM[-1], *[stage.out for stage in stages]]
        self.stages = nn.LayerList(_Stage(before, stage) for before, stage in zip(channels, stages, strict=False))
        self.last_conv = nn.Conv2D(channels[-1], _CLASSIFIER, 1, bias_attr=False)
        kaiming_start(self)


class HGNetV2Rec(_HGNetV2):
    """PP-HGNetV2-B4 for text lines.

    Attributes:
        out_channels: Channels of the output, 2048.
    """

    def __init__(self) -> None:
        super().__init__(RECOGNITION, stem_stride=1)
        self.fc = nn.Linear(_CLASSIFIER, _IMAGENET)
        self.out_channels = RECOGNITION[-1].out

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 48, W) to (N, out_channels, 1, frames)."""
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return pool_to_frames(x, training=self.training)


class HGNetV2Det(_HGNetV2):
    """PP-HGNetV2-B4 for pages.

    Attributes:
        out_channels: Channels of the four maps.
    """

    def __init__(self) -> None:
        super().__init__(DETECTION, stem_stride=2)
        self.out_channels = [stage.out for stage in DETECTION]

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, 3, H, W) to four maps at 1/4, 1/8, 1/16 and 1/32 of the size."""
        x = self.stem(x)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps
