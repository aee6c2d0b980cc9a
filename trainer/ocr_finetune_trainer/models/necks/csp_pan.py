"""CSP-PAN: path aggregation by cross-stage partial layers, as PP-PicoDet (https://arxiv.org/abs/2111.00902) has it.

The coarse map's meaning flows down to the fine one and back up again, so that even the coarsest output has seen detail.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import paddle
from paddle import nn

from ocr_finetune_trainer.models.common import ConvNorm, batch_norm
from ocr_finetune_trainer.models.necks.fpn import upsample

if TYPE_CHECKING:
    from collections.abc import Sequence

    from paddle import Tensor

_KERNEL = 5  # section 3.2 of the paper


def _kaiming() -> paddle.ParamAttr:
    return paddle.ParamAttr(initializer=nn.initializer.KaimingUniform())


def _pointwise(in_channels: int, out_channels: int) -> ConvNorm:
    return ConvNorm(in_channels, out_channels, kernel=1, activation=nn.Hardswish(), weight_attr=_kaiming())


class _Separable(nn.Layer):
    def __init__(self, channels: int, *, stride: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2D(
            channels,
            channels,
            _KERNEL,
            stride=stride,
            padding=_KERNEL // 2,
            groups=channels,
            weight_attr=_kaiming(),
            bias_attr=False,
        )
        self.bn1 = batch_norm(channels)
        self.pwconv = nn.Conv2D(channels, channels, 1, weight_attr=_kaiming(), bias_attr=False)
        self.bn2 = batch_norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.hardswish(self.bn1(self.dwconv(x)))
        return nn.functional.hardswish(self.bn2(self.pwconv(x)))


class _Bottleneck(nn.Layer):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = _pointwise(channels, channels)
        self.conv2 = _Separable(channels, stride=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.conv1(x))


class _PartialLayer(nn.Layer):
    """Half of the channels take a short cut past the bottleneck."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        half = out_channels // 2
        self.main_conv = _pointwise(in_channels, half)
        self.short_conv = _pointwise(in_channels, half)
        self.blocks = nn.Sequential(_Bottleneck(half))
        self.final_conv = _pointwise(2 * half, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.final_conv(paddle.concat([self.blocks(self.main_conv(x)), self.short_conv(x)], axis=1))


class _Lateral(nn.Layer):
    def __init__(self, in_channels: Sequence[int], out_channels: int) -> None:
        super().__init__()
        self.convs = nn.LayerList([_pointwise(channels, out_channels) for channels in in_channels])

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        return [conv(maps[index]) for index, conv in enumerate(self.convs)]


def _enlarged(coarse: Tensor, *, like: Tensor) -> Tensor:
    """Nearest neighbours in the size of a map that is twice as large, or one less where halving rounded up."""
    height, width = like.shape[2:4]
    if paddle.in_dynamic_mode():
        return nn.functional.interpolate(coarse, size=(height, width), mode="nearest")
    return upsample(coarse, 2)[:, :, :height, :width]


class CSPPAN(nn.Layer):
    """Brings all maps to one width and lets them exchange what they know.

    Args:
        in_channels: Channels of the backbone's maps, the largest map first.
        out_channels: Channels of every output.
    """

    def __init__(self, in_channels: Sequence[int], *, out_channels: int) -> None:
        super().__init__()
        steps = len(in_channels) - 1
        self.conv_t = _Lateral(in_channels, out_channels)
        self.top_down_blocks = nn.LayerList([_PartialLayer(2 * out_channels, out_channels) for _ in range(steps)])
        self.downsamples = nn.LayerList([_Separable(out_channels, stride=2) for _ in range(steps)])
        self.bottom_up_blocks = nn.LayerList([_PartialLayer(2 * out_channels, out_channels) for _ in range(steps)])
        self.out_channels = out_channels

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps (N, C_i, H_i, W_i), the largest first, to as many of (N, out_channels, H_i, W_i)."""
        lateral = self.conv_t(maps)
        inner = [lateral[-1]]
        for index, block in enumerate(self.top_down_blocks):
            fine = lateral[-2 - index]
            coarse = _enlarged(inner[0], like=fine)
            inner.insert(0, block(paddle.concat([coarse, fine], axis=1)))
        outs = [inner[0]]
        for index, block in enumerate(self.bottom_up_blocks):
            outs.append(block(paddle.concat([self.downsamples[index](outs[-1]), inner[index + 1]], axis=1)))
        return outs
