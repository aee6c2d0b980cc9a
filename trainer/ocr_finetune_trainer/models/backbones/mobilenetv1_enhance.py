"""MobileNetV1Enhance, the backbone of PP-OCRv3's recogniser: MobileNetV1 with larger kernels and attention at its end.

Numbers and parameter names are those of PaddleOCR 3.0 (`ppocr/modeling/backbones/rec_mv1_enhance.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import paddle
from paddle import nn

from ocr_finetune_trainer.models.common import SqueezeExcite, Stride, undecayed

if TYPE_CHECKING:
    from paddle import Tensor


@dataclass(frozen=True)
class _Row:
    out: int
    stride: Stride = 1
    kernel: int = 3
    attention: bool = False


_ROWS = (
    _Row(64),
    _Row(128),
    _Row(128),
    _Row(256, (2, 1)),
    _Row(256),
    _Row(512, (2, 1)),
    *[_Row(512, kernel=5)] * 5,
    _Row(1024, (2, 1), kernel=5, attention=True),
    _Row(1024, (1, 2), kernel=5, attention=True),  # last_conv_stride [1, 2] of the configuration
)


class _ConvNorm(nn.Layer):
    # the files call the two parts `_conv` and `_batch_norm`
    def __init__(
        self, in_channels: int, out_channels: int, *, kernel: int, stride: Stride = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self._conv = nn.Conv2D(
            in_channels,
            out_channels,
            kernel,
            stride=stride,
            padding=(kernel - 1) // 2,
            groups=groups,
            weight_attr=paddle.ParamAttr(initializer=nn.initializer.KaimingNormal()),
            bias_attr=False,
        )
        self._batch_norm = nn.BatchNorm2D(out_channels, weight_attr=undecayed(), bias_attr=undecayed())

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.hardswish(self._batch_norm(self._conv(x)))


class _Separable(nn.Layer):
    def __init__(self, in_channels: int, out_channels: int, row: _Row) -> None:
        super().__init__()
        self._depthwise_conv = _ConvNorm(
            in_channels, in_channels, kernel=row.kernel, stride=row.stride, groups=in_channels
        )
        self._se = SqueezeExcite(in_channels) if row.attention else None
        self._pointwise_conv = _ConvNorm(in_channels, out_channels, kernel=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self._depthwise_conv(x)
        return self._pointwise_conv(x if self._se is None else self._se(x))


class MobileNetV1Enhance(nn.Layer):
    """The backbone.

    Args:
        scale: Multiplier of all widths; 0.5 in PP-OCRv3.
        pool_height: Rows that the last average takes in. PaddleOCR's configuration for the guided model says 2 and
            leaves the third row out; the guide's for CTC alone keeps the code's 3.

    Attributes:
        out_channels: Channels of the output.
    """

    def __init__(self, *, scale: float, pool_height: int) -> None:
        super().__init__()
        channels = int(32 * scale)
        self.conv1 = _ConvNorm(3, channels, kernel=3, stride=2)
        blocks = []
        for row in _ROWS:
            width = int(row.out * scale)
            blocks.append(_Separable(channels, width, row))
            channels = width
        self.block_list = nn.Sequential(*blocks)
        kernel = [pool_height, 2]
        self.pool = nn.AvgPool2D(kernel_size=kernel, stride=kernel)
        self.out_channels = channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 48, W) to (N, out_channels, 1, W / 8)."""
        return self.pool(self.block_list(self.conv1(x)))
