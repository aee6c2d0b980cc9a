"""Small parts that several backbones share, so that each architecture module shows only what is its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import paddle
from paddle import nn
from paddle.regularizer import L2Decay

if TYPE_CHECKING:
    from paddle import Tensor

Stride = int | tuple[int, int]


def make_divisible(value: float, *, divisor: int) -> int:
    """Rounds a channel count to a multiple of `divisor` without losing more than a tenth of it.

    The rule of MobileNetV2 (https://arxiv.org/abs/1801.04381), which every scaled backbone here follows.

    Args:
        value: The wanted count of channels.
        divisor: What the result is a multiple of; also its minimum.

    Returns:
        The count to build.
    """
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def undecayed(*, learning_rate: float = 1.0) -> paddle.ParamAttr:
    """The attribute of a normalisation's scale and shift: weight decay would pull them to 0, which is never wanted.

    Args:
        learning_rate: Multiplier of the optimizer's rate for this parameter.
    """
    return paddle.ParamAttr(regularizer=L2Decay(0.0), learning_rate=learning_rate)


def batch_norm(channels: int) -> nn.BatchNorm2D:
    """A batch normalisation whose scale and shift are free of weight decay."""
    return nn.BatchNorm2D(channels, weight_attr=undecayed(), bias_attr=undecayed())


def relu(x: Tensor) -> Tensor:
    """The rectifier, written over its input: no copy is made, nor kept for the way back.

    Only for what no gradient needs again, such as the output of a normalisation or a sum. An exported graph has the
    plain operator, for which paddle2onnx has a translation.
    """
    return nn.functional.relu_(x) if paddle.in_dynamic_mode() else nn.functional.relu(x)


class ConvNorm(nn.Layer):
    """Convolution, batch normalisation and, if given, an activation; parameters `conv.*` and `bn.*`.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel: Side of the square kernel; the padding keeps the size at stride 1.
        stride: One stride, or one for height and one for width.
        groups: Groups of the convolution.
        activation: What follows the normalisation.
        padding: Overrides the padding; `SAME` for kernels of even size.
        weight_attr: How the kernel starts.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel: int,
        stride: Stride = 1,
        groups: int = 1,
        activation: nn.Layer | None = None,
        padding: int | str | None = None,
        weight_attr: paddle.ParamAttr | None = None,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2D(
            in_channels,
            out_channels,
            kernel,
            stride=stride,
            padding=(kernel - 1) // 2 if padding is None else padding,
            groups=groups,
            weight_attr=weight_attr,
            bias_attr=False,
        )
        self.bn = batch_norm(out_channels)
        self.act = activation

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, out_channels, H', W')."""
        x = self.bn(self.conv(x))
        return x if self.act is None else self.act(x)


class SqueezeExcite(nn.Layer):
    """Channel attention of MobileNetV3 (https://arxiv.org/abs/1905.02244); parameters `conv1.*` and `conv2.*`.

    Args:
        channels: Channels of input and output.
        reduction: How much narrower the hidden layer is.
        slope: Slope of the hard sigmoid; PP-LCNet has the paper's 1/6, PaddleOCR's MobileNetV3 and pyramids have 0.2.
    """

    def __init__(self, channels: int, *, reduction: int = 4, slope: float = 1 / 6) -> None:
        super().__init__()
        self.slope = slope
        self.pool = nn.AdaptiveAvgPool2D(1)
        self.conv1 = nn.Conv2D(channels, channels // reduction, 1)
        self.conv2 = nn.Conv2D(channels // reduction, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W), each channel scaled by a weight in [0, 1] that the whole picture decides."""
        weight = relu(self.conv1(self.pool(x)))
        return x * nn.functional.hardsigmoid(self.conv2(weight), slope=self.slope)
