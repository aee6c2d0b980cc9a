"""ResNet34-vd for text lines, the backbone of CRNN.

Numbers and parameter names are those of PaddleOCR 3.0 (`ppocr/modeling/backbones/rec_resnet_vd.py`, `layers: 34`);
"vd" is variant D of https://arxiv.org/abs/1812.01187: three small convolutions at the start, pooling in the shortcuts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import paddle
from paddle import nn

from ocr_finetune_trainer.models.common import Stride, relu

if TYPE_CHECKING:
    from paddle import Tensor

# A CPU multiplies matrices sample by sample; at under this many places a sample and so many channels each product is
# too narrow to be fast, and the samples go side by side into one picture. Measured: 8 % off such a convolution.
_FEW_PLACES, _MANY_CHANNELS = 128, 512
_DEPTHS = (3, 4, 6, 3)
_WIDTHS = (64, 128, 256, 512)


class _ConvNorm(nn.Layer):
    # the files call the two parts `_conv` and `_batch_norm`
    def __init__(
        self, in_channels: int, out_channels: int, *, kernel: int, stride: Stride = 1, pooled: bool = False
    ) -> None:
        super().__init__()
        self.pool = nn.AvgPool2D(kernel_size=stride, stride=stride, ceil_mode=True) if pooled else None
        self._conv = nn.Conv2D(
            in_channels,
            out_channels,
            kernel,
            stride=1 if pooled else stride,
            padding=(kernel - 1) // 2,
            bias_attr=False,
        )
        self._batch_norm = nn.BatchNorm2D(out_channels)

        self._keeps_size = kernel == 3 and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.pool is None else self.pool(x)
        narrow = x.shape[1] >= _MANY_CHANNELS and self._keeps_size and paddle.in_dynamic_mode()
        if narrow and x.place.is_cpu_place() and x.shape[0] > 1 and x.shape[2] * x.shape[3] <= _FEW_PLACES:
            return self._batch_norm(_side_by_side(x, self._conv.weight))
        return self._batch_norm(self._conv(x))


def _side_by_side(x: Tensor, weight: Tensor) -> Tensor:
    """A 3×3 convolution of (N, C, H, W) as one of (1, C, H, N (W + 1)): between two samples lies a column of zeros."""
    samples, channels, height, width = x.shape
    row = nn.functional.pad(x, [0, 1, 0, 0]).transpose([1, 2, 0, 3]).reshape([1, channels, height, -1])
    y = nn.functional.conv2d(row, weight, padding=1).reshape([weight.shape[0], height, samples, width + 1])
    return y[:, :, :, :width].transpose([2, 0, 1, 3])


class _Basic(nn.Layer):
    def __init__(self, in_channels: int, out_channels: int, *, stride: Stride, first: bool) -> None:
        super().__init__()
        self.conv0 = _ConvNorm(in_channels, out_channels, kernel=3, stride=stride)
        self.conv1 = _ConvNorm(out_channels, out_channels, kernel=3)
        if first or in_channels != out_channels:
            self.short: nn.Layer | None = _ConvNorm(
                in_channels, out_channels, kernel=1, stride=stride, pooled=not first
            )
        else:
            self.short = None

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(relu(self.conv0(x)))
        return relu(y + (x if self.short is None else self.short(x)))


class ResNet34VdRec(nn.Layer):
    """The backbone; blocks are named `bb_<stage>_<block>`.

    Attributes:
        out_channels: Channels of the output, 512.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1_1 = _ConvNorm(3, 32, kernel=3)
        self.conv1_2 = _ConvNorm(32, 32, kernel=3)
        self.conv1_3 = _ConvNorm(32, 64, kernel=3)
        self.pool = nn.MaxPool2D(kernel_size=3, stride=2, padding=1)
        self._blocks: list[str] = []
        channels = 64
        for stage, (depth, width) in enumerate(zip(_DEPTHS, _WIDTHS, strict=True)):
            for block in range(depth):
                stride: Stride = (2, 1) if stage > 0 and block == 0 else 1
                name = f"bb_{stage}_{block}"
                setattr(self, name, _Basic(channels, width, stride=stride, first=stage == block == 0))
                self._blocks.append(name)
                channels = width
        self.out_pool = nn.MaxPool2D(kernel_size=2, stride=2)
        self.out_channels = channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 32, W) to (N, 512, 1, W / 4)."""
        for conv in (self.conv1_1, self.conv1_2, self.conv1_3):
            x = relu(conv(x))
        x = self.pool(x)
        for name in self._blocks:
            x = getattr(self, name)(x)
        return self.out_pool(x)
