"""PP-LCNetV3, the backbone of the mobile models of PP-OCRv4 and v5.

Every convolution is several parallel ones in training and a single one in use (`RepLayer.fuse`). Numbers and parameter
names are those of PaddleOCR 3.0 (`ppocr/modeling/backbones/rec_lcnetv3.py`); the design follows PP-LCNet
(https://arxiv.org/abs/2109.15099) and RepVGG (https://arxiv.org/abs/2101.03697).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import paddle
from paddle import nn

from ocr_finetune_trainer.models.backbones.parallel import depthwise_sum, folded, measures, pointwise_sum
from ocr_finetune_trainer.models.backbones.pooling import pool_to_frames
from ocr_finetune_trainer.models.common import ConvNorm, SqueezeExcite, Stride, make_divisible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from paddle import Tensor

_BRANCHES = 4  # parallel convolutions of the full kernel
_AFFINE_RATE = 0.1  # learnable affine blocks learn at a tenth of the rate
# Below this the branches run one by one as PaddleOCR runs them: little can be saved there, and gradients that all but
# cancel keep its rounding, which a comparison with its figures needs.
_FEW_SAMPLES = 4


@dataclass(frozen=True)
class Row:
    """One block before scaling: kernel of the depth-wise convolution, output channels, stride, attention."""

    kernel: int
    out: int
    stride: Stride = 1
    attention: bool = False


Stages = tuple[tuple[Row, ...], ...]

# Text lines keep their width: 48 × W becomes 3 × W / 4.
RECOGNITION: Stages = (
    (Row(3, 32),),
    (Row(3, 64), Row(3, 64)),
    (Row(3, 128, (2, 1)), Row(3, 128)),
    (Row(3, 256, (1, 2)), *[Row(5, 256)] * 4),
    (Row(5, 512, (2, 1), attention=True), Row(5, 512, attention=True), Row(5, 512, (2, 1)), Row(5, 512)),
)
# Pages are reduced to 1/4, 1/8, 1/16 and 1/32.
DETECTION: Stages = (
    (Row(3, 32),),
    (Row(3, 64, 2), Row(3, 64)),
    (Row(3, 128, 2), Row(3, 128)),
    (Row(3, 256, 2), *[Row(5, 256)] * 4),
    (Row(5, 512, 2, attention=True), Row(5, 512, attention=True), Row(5, 512), Row(5, 512)),
)
_DETECTION_OUT = (16, 24, 56, 480)  # widths of the four maps handed to the neck, before scaling


class LearnableAffine(nn.Layer):
    """`scale * x + bias` with one number each; parameters `scale` and `bias`."""

    def __init__(self) -> None:
        super().__init__()
        rate = paddle.ParamAttr(learning_rate=_AFFINE_RATE)
        self.scale = self.create_parameter([1], attr=rate, default_initializer=nn.initializer.Constant(1.0))
        self.bias = self.create_parameter([1], attr=rate, default_initializer=nn.initializer.Constant(0.0))

    def forward(self, x: Tensor) -> Tensor:
        """Any shape, kept."""
        scaled = self.scale * x
        # no gradient needs the product again, so it need not stay beside the sum
        return scaled.add_(self.bias) if paddle.in_dynamic_mode() else scaled + self.bias


class AffineActivation(nn.Layer):
    """Hard swish, then a learnable affine; parameters `lab.*`."""

    def __init__(self) -> None:
        super().__init__()
        self.act = nn.Hardswish()
        self.lab = LearnableAffine()

    def forward(self, x: Tensor) -> Tensor:
        """Any shape, kept."""
        return self.lab(self.act(x))


def _conv_norm(in_channels: int, out_channels: int, *, kernel: int, stride: Stride, groups: int = 1) -> ConvNorm:
    kaiming = paddle.ParamAttr(initializer=nn.initializer.KaimingNormal())
    return ConvNorm(in_channels, out_channels, kernel=kernel, stride=stride, groups=groups, weight_attr=kaiming)


class RepLayer(nn.Layer):
    """A sum of parallel convolutions (full kernel, 1×1, identity), each with its own normalisation.

    Parameters `conv_kxk.<i>.*`, `conv_1x1.*` where the kernel is larger than 1, `identity.*` where input and output
    have the same shape, `lab.*`, `act.lab.*`. After `fuse`: `reparam_conv.weight`, `reparam_conv.bias` instead of the
    branches.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel: Side of the full kernel.
        stride: One stride, or one for height and one for width.
        groups: Groups of the convolutions.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, kernel: int, stride: Stride = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.kernel = kernel
        self.stride = stride
        self.groups = groups
        self.in_channels = in_channels
        self.out_channels = out_channels
        if out_channels == in_channels and stride == 1:
            self.identity: nn.Layer | None = nn.BatchNorm2D(in_channels)
        else:
            self.identity = None
        self.conv_kxk: Any = nn.LayerList(
            _conv_norm(in_channels, out_channels, kernel=kernel, stride=stride, groups=groups) for _ in range(_BRANCHES)
        )
        if kernel > 1:
            self.conv_1x1: Any = _conv_norm(in_channels, out_channels, kernel=1, stride=stride, groups=groups)
        else:
            self.conv_1x1 = None
        self.reparam_conv: nn.Layer | None = None
        self.lab = LearnableAffine()
        self.act = AffineActivation()

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, out_channels, H', W')."""
        y = self.lab(self._sum(x) if self.reparam_conv is None else self.reparam_conv(x))
        # A stride of 2 in both directions is followed by no activation; the parameters of it exist all the same.
        return y if self.stride == 2 else self.act(y)

    def _sum(self, x: Tensor) -> Tensor:
        if not measures(self.conv_kxk[0].bn):
            kernel, bias = self._folded()
            return nn.functional.conv2d(
                x, kernel, bias, stride=self.stride, padding=self.kernel // 2, groups=self.groups
            )
        if not x.place.is_cpu_place() or x.shape[0] < _FEW_SAMPLES:
            branches = [self.identity, self.conv_1x1, *self.conv_kxk]
            return paddle.add_n([branch(x) for branch in branches if branch is not None])
        if self.kernel == 1:
            return pointwise_sum(x, self.conv_kxk, self.identity)
        y = depthwise_sum(x, [self.conv_1x1, *self.conv_kxk], kernel=self.kernel, stride=self.stride)
        return y if self.identity is None else y + self.identity(x)

    @paddle.no_grad()
    def fuse(self) -> None:
        """Folds the branches and their running statistics into `reparam_conv`; once done it does nothing."""
        if self.reparam_conv is not None:
            return
        kernel, bias = self._folded()
        fused = nn.Conv2D(
            self.in_channels,
            self.out_channels,
            self.kernel,
            stride=self.stride,
            padding=self.kernel // 2,
            groups=self.groups,
        )
        fused.weight.set_value(kernel)
        fused.bias.set_value(bias)
        self.reparam_conv = fused
        self.conv_kxk = self.conv_1x1 = self.identity = None

    def _folded(self) -> tuple[Tensor, Tensor]:
        # all branches and their running statistics as one kernel and its bias
        around = [self.kernel // 2] * 4
        kernels, biases = [], []
        for branch in self.conv_kxk:
            factor, bias = folded(branch.bn)
            kernels.append(branch.conv.weight * factor.reshape([-1, 1, 1, 1]))
            biases.append(bias)
        if self.conv_1x1 is not None:
            factor, bias = folded(self.conv_1x1.bn)
            kernels.append(nn.functional.pad(self.conv_1x1.conv.weight * factor.reshape([-1, 1, 1, 1]), around))
            biases.append(bias)
        if self.identity is not None:
            factor, bias = folded(self.identity)
            # depth-wise, each output channel sees its own input channel only
            unit = factor if self.groups > 1 else paddle.diag(factor)
            kernels.append(nn.functional.pad(unit.reshape([self.in_channels, -1, 1, 1]), around))
            biases.append(bias)
        return paddle.add_n(kernels), paddle.add_n(biases)


class _Block(nn.Layer):
    def __init__(self, in_channels: int, out_channels: int, row: Row) -> None:
        super().__init__()
        self.dw_conv = RepLayer(in_channels, in_channels, kernel=row.kernel, stride=row.stride, groups=in_channels)
        self.se = SqueezeExcite(in_channels) if row.attention else None
        self.pw_conv = RepLayer(in_channels, out_channels, kernel=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.dw_conv(x)
        return self.pw_conv(x if self.se is None else self.se(x))


class _LCNetV3(nn.Layer):
    def __init__(self, stages: Stages, *, scale: float) -> None:
        super().__init__()
        channels = make_divisible(16 * scale, divisor=16)
        self.conv1 = _conv_norm(3, channels, kernel=3, stride=2)
        self.widths: list[int] = []
        for number, rows in enumerate(stages, start=2):
            blocks = []
            for row in rows:
                width = make_divisible(row.out * scale, divisor=16)
                blocks.append(_Block(channels, width, row))
                channels = width
            setattr(self, f"blocks{number}", nn.Sequential(*blocks))
            self.widths.append(channels)

    def maps(self, x: Tensor) -> Sequence[Tensor]:
        x = self.blocks2(self.conv1(x))
        maps = []
        for stage in (self.blocks3, self.blocks4, self.blocks5, self.blocks6):
            x = stage(x)
            maps.append(x)
        return maps


class LCNetV3Rec(_LCNetV3):
    """PP-LCNetV3 for text lines.

    Args:
        scale: Multiplier of all widths; 0.95 in PP-OCRv4 and v5.

    Attributes:
        out_channels: Channels of the output.
    """

    def __init__(self, *, scale: float) -> None:
        super().__init__(RECOGNITION, scale=scale)
        self.out_channels = self.widths[-1]

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 48, W) to (N, out_channels, 1, frames)."""
        return pool_to_frames(self.maps(x)[-1], training=self.training)


class LCNetV3Det(_LCNetV3):
    """PP-LCNetV3 for pages.

    Args:
        scale: Multiplier of all widths; 0.75 in PP-OCRv4 and v5.

    Attributes:
        out_channels: Channels of the four maps.
    """

    def __init__(self, *, scale: float) -> None:
        super().__init__(DETECTION, scale=scale)
        self.out_channels = [int(width * scale) for width in _DETECTION_OUT]
        self.layer_list = nn.LayerList(
            nn.Conv2D(width, out, 1) for width, out in zip(self.widths[1:], self.out_channels, strict=True)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, 3, H, W) to four maps at 1/4, 1/8, 1/16 and 1/32 of the size."""
        maps = self.maps(x)
        # No `zip`: Paddle's translator to a static graph knows no `strict`.
        return [layer(maps[i]) for i, layer in enumerate(self.layer_list)]
