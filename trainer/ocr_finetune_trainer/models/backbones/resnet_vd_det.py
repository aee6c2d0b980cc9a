"""ResNet-D with bottlenecks (https://arxiv.org/abs/1812.01187) for pages, with four outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paddle import nn

from ocr_finetune_trainer.models.common import batch_norm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from paddle import Tensor

# The output of a bottleneck is this many times as wide as its middle.
_EXPANSION = 4


class _ConvNorm(nn.Layer):
    """Convolution and batch normalisation under PaddleOCR's names, `_conv.*` and `_batch_norm.*`."""

    def __init__(self, in_channels: int, out_channels: int, *, kernel: int, stride: int = 1, relu: bool = True) -> None:
        super().__init__()
        self._conv = nn.Conv2D(
            in_channels, out_channels, kernel, stride=stride, padding=(kernel - 1) // 2, bias_attr=False
        )
        self._batch_norm = batch_norm(out_channels)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        x = self._batch_norm(self._conv(x))
        return nn.functional.relu(x) if self.relu else x


class Bottleneck(nn.Layer):
    """1×1, 3×3, 1×1 beside a shortcut that averages before it projects; parameters `conv0` to `conv2`, `short`.

    Args:
        in_channels: Channels of the input.
        inner: Channels of the 3×3 convolution; the output has four times as many.
        stride: Stride of the 3×3 convolution.
        project: Whether the shortcut has a convolution: in the first block of a stage.
    """

    def __init__(self, in_channels: int, inner: int, *, stride: int, project: bool) -> None:
        super().__init__()
        out_channels = inner * _EXPANSION
        self.conv0 = _ConvNorm(in_channels, inner, kernel=1)
        self.conv1 = _ConvNorm(inner, inner, kernel=3, stride=stride)
        self.conv2 = _ConvNorm(inner, out_channels, kernel=1, relu=False)
        self.pool = nn.AvgPool2D(2, stride=2, ceil_mode=True) if stride != 1 else None
        self.short = _ConvNorm(in_channels, out_channels, kernel=1, relu=False) if project else None

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, 4·inner, H/stride, W/stride)."""
        y = self.conv2(self.conv1(self.conv0(x)))
        if self.short is not None:
            x = self.short(x if self.pool is None else self.pool(x))
        return nn.functional.relu(x + y)


class ResNetVdDet(nn.Layer):
    """ResNet-D with a feature map of each stage; parameters `conv1_1` to `conv1_3`, `bb_<stage>_<block>`.

    Args:
        depths: Blocks of the four stages; (3, 4, 6, 3) is ResNet-50.

    Attributes:
        out_channels: Channels of the four outputs.
    """

    def __init__(self, depths: Sequence[int]) -> None:
        super().__init__()
        self.conv1_1 = _ConvNorm(3, 32, kernel=3, stride=2)
        self.conv1_2 = _ConvNorm(32, 32, kernel=3)
        self.conv1_3 = _ConvNorm(32, 64, kernel=3)
        self.pool = nn.MaxPool2D(3, stride=2, padding=1)
        self.depths = tuple(depths)
        self.out_channels: list[int] = []
        channels = 64
        for stage, depth in enumerate(self.depths):
            inner = 64 * 2**stage
            for block in range(depth):
                stride = 2 if block == 0 and stage else 1
                layer = Bottleneck(channels, inner, stride=stride, project=block == 0)
                self.add_sublayer(f"bb_{stage}_{block}", layer)
                channels = inner * _EXPANSION
            self.out_channels.append(channels)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, 3, H, W) to four maps at H/4, H/8, H/16 and H/32."""
        x = self.pool(self.conv1_3(self.conv1_2(self.conv1_1(x))))
        maps = []
        for stage, depth in enumerate(self.depths):
            for block in range(depth):
                x = getattr(self, f"bb_{stage}_{block}")(x)
            maps.append(x)
        return maps
