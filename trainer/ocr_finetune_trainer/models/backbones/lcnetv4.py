"""PP-LCNetV4, the backbone of PP-OCRv6 in three sizes, for text lines and for pages.

A block mixes places (a depth-wise convolution that is three parallel ones in training and one in use, as in RepViT,
https://arxiv.org/abs/2307.09283) and then channels (twice as wide, GELU, back). Numbers and parameter names are those
of PaddleOCR 3.7 (`ppocr/modeling/backbones/rec_lcnetv4.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import paddle
from paddle import nn

from ocr_finetune_trainer.models.backbones.pooling import pool_to_frames
from ocr_finetune_trainer.models.common import ConvNorm, SqueezeExcite, Stride

if TYPE_CHECKING:
    from collections.abc import Iterable

    from paddle import Tensor

_KERNEL = 3
_EXPANSION = 2


@dataclass(frozen=True)
class Row:
    """One block: output channels, stride, attention."""

    out: int
    stride: Stride = 1
    attention: bool = False


def _same(out: int, *attention: bool) -> tuple[Row, ...]:
    """Blocks that keep size and width, one for each flag."""
    return tuple(Row(out, attention=flag) for flag in attention)


@dataclass(frozen=True)
class Size:
    """One size of the net.

    Attributes:
        stem: Channels inside the stem and after it.
        branched: Whether the stem has two branches; else it is two convolutions.
        stages: The blocks.
    """

    stem: tuple[int, int]
    stages: tuple[tuple[Row, ...], ...]
    branched: bool = True


def _page_stages(first: int, second: int, third: int, fourth: int) -> tuple[tuple[Row, ...], ...]:
    """Pages are reduced to 1/4, 1/8, 1/16 and 1/32; attention in every other block that keeps the size."""
    return (
        _same(first, True, False),
        (Row(second, 2), *_same(second, True, False)),
        (Row(third, 2), *_same(third, True, False, True, False)),
        (Row(fourth, 2), *_same(fourth, True, False)),
    )


PAGES = {
    "tiny": Size((16, 32), _page_stages(32, 48, 64, 160)),
    "small": Size((24, 48), _page_stages(48, 96, 192, 384)),
    "medium": Size((64, 128), _page_stages(128, 256, 512, 896)),
}
# Text lines of 48 × W become 3 × W / 4: the stages halve the height alone.
LINES = {
    "tiny": Size(
        (24, 48),
        (
            _same(48, True),
            _same(48, False),
            (Row(96, (2, 1)), *_same(96, True, False)),
            (Row(160, (2, 1)), *_same(160, True, False, False)),
        ),
        branched=False,
    ),
    "small": Size(
        (48, 96),
        (
            _same(96, True),
            _same(96, False, False),
            (Row(192, (2, 1)), *_same(192, True, False, True, False, True, False)),
            (Row(384, (2, 1)), *_same(384, True, False)),
        ),
    ),
    "medium": Size(
        (64, 128),
        (
            _same(128, True),
            (Row(256), *_same(256, False, True)),
            (Row(512, (2, 1)), *_same(512, True, False, True, False, True, False)),
            (Row(768, (2, 1)), *_same(768, True, False)),
        ),
    ),
}


class RepDepthwise(nn.Layer):
    """A 3×3 filter a channel beside a 1×1 one and the identity; parameters `conv.*`, `conv1.weight`, `bn.*`.

    After `fuse`: `reparam_conv.weight` and `reparam_conv.bias` instead.

    Args:
        channels: Channels of input and output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.conv: nn.Layer | None = ConvNorm(channels, channels, kernel=_KERNEL, groups=channels)
        self.conv1: nn.Layer | None = nn.Conv2D(channels, channels, 1, groups=channels, bias_attr=False)
        self.bn: nn.Layer | None = nn.BatchNorm2D(channels)
        self.reparam_conv: nn.Layer | None = None

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W), kept."""
        if self.reparam_conv is not None:
            return self.reparam_conv(x)
        return self.bn(self.conv(x) + self.conv1(x) + x)  # type: ignore[misc]

    @paddle.no_grad()
    def fuse(self) -> None:
        """Folds the branches and their running statistics into one convolution; once done it does nothing."""
        if self.reparam_conv is not None or self.conv is None or self.conv1 is None or self.bn is None:
            return
        inner, inner_bias = folded_norm(self.conv.bn)
        one = paddle.ones_like(self.conv1.weight) + self.conv1.weight
        kernel = self.conv.conv.weight * inner + nn.functional.pad(one, [_KERNEL // 2] * 4)
        factor, bias = folded_norm(self.bn)
        fused = nn.Conv2D(self.channels, self.channels, _KERNEL, padding=_KERNEL // 2, groups=self.channels)
        fused.weight.set_value(kernel * factor)
        fused.bias.set_value(bias + inner_bias * factor.flatten())
        self.reparam_conv = fused
        self.conv = self.conv1 = self.bn = None


def folded_norm(norm: nn.BatchNorm2D) -> tuple[Tensor, Tensor]:
    """Running statistics as a factor (C, 1, 1, 1) of the kernel before them, and a bias (C,)."""
    factor = norm.weight / paddle.sqrt(norm._variance + norm._epsilon)  # noqa: SLF001 - Paddle has no public name
    return factor.reshape([-1, 1, 1, 1]), norm.bias - norm._mean * factor  # noqa: SLF001


class _Block(nn.Layer):
    def __init__(self, in_channels: int, row: Row) -> None:
        super().__init__()
        self.residual = row.stride == 1 and in_channels == row.out
        if self.residual:
            token: list[tuple[str, nn.Layer]] = [("rep_dw", RepDepthwise(in_channels))]
        else:
            plain = ConvNorm(in_channels, in_channels, kernel=_KERNEL, stride=row.stride, groups=in_channels)
            token = [("dw_conv", plain)]
        if row.attention:
            token.append(("se", SqueezeExcite(in_channels)))
        self.token_mixer = nn.Sequential(*token)
        compress = ConvNorm(_EXPANSION * in_channels, row.out, kernel=1)
        if self.residual:  # a block begins as the identity
            nn.initializer.Constant(0.0)(compress.bn.weight)
        self.channel_mixer = nn.Sequential(
            ("expand", ConvNorm(in_channels, _EXPANSION * in_channels, kernel=1)),
            ("act", nn.GELU()),
            ("compress", compress),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.token_mixer(x)
        y = self.channel_mixer(x)
        return x + y if self.residual else y


class _Stem(nn.Layer):
    """A quarter of the size by two strided convolutions, with a pooled short cut between them."""

    def __init__(self, inner: int, out: int) -> None:
        super().__init__()
        self.stem1 = ConvNorm(3, inner, kernel=3, stride=2, activation=nn.ReLU())
        self.stem2a = ConvNorm(inner, inner // 2, kernel=2, padding="SAME", activation=nn.ReLU())
        self.stem2b = ConvNorm(inner // 2, inner, kernel=2, padding="SAME", activation=nn.ReLU())
        self.stem3 = ConvNorm(2 * inner, inner, kernel=3, stride=2, activation=nn.ReLU())
        self.stem4 = ConvNorm(inner, out, kernel=1, activation=nn.ReLU())
        self.pool = nn.MaxPool2D(kernel_size=2, stride=1, padding="SAME")

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem1(x)
        x = paddle.concat([self.pool(x), self.stem2b(self.stem2a(x))], axis=1)
        return self.stem4(self.stem3(x))


def _stem(size: Size) -> nn.Layer:
    inner, out = size.stem
    if size.branched:
        return _Stem(inner, out)
    return nn.Sequential(ConvNorm(3, inner, kernel=3, stride=2), nn.GELU(), ConvNorm(inner, out, kernel=3, stride=2))


def _stage(channels: int, rows: Iterable[Row]) -> tuple[nn.Sequential, int]:
    blocks = []
    for row in rows:
        blocks.append(_Block(channels, row))
        channels = row.out
    return nn.Sequential(*blocks), channels


class LCNetV4Rec(nn.Layer):
    """PP-LCNetV4 for text lines; parameters `conv1.*`, `blocks2.*` to `blocks5.*`.

    Args:
        size: `tiny`, `small` or `medium`.

    Attributes:
        out_channels: Channels of the output.
    """

    def __init__(self, size: str) -> None:
        super().__init__()
        config = LINES[size]
        self.conv1 = _stem(config)
        channels = config.stem[1]
        self._names = [f"blocks{number}" for number, _ in enumerate(config.stages, start=2)]
        for number, name in enumerate(self._names):
            stage, channels = _stage(channels, config.stages[number])
            setattr(self, name, stage)
        self.out_channels = channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 48, W) to (N, out_channels, 1, frames)."""
        x = self.conv1(x)
        for name in self._names:
            x = getattr(self, name)(x)
        return pool_to_frames(x, training=self.training)


class LCNetV4Det(nn.Layer):
    """PP-LCNetV4 for pages; parameters `stem.*`, `blocks_s1.*` to `blocks_s4.*`.

    Args:
        size: `tiny`, `small` or `medium`.

    Attributes:
        out_channels: Channels of the four maps.
    """

    def __init__(self, size: str) -> None:
        super().__init__()
        config = PAGES[size]
        self.stem = _stem(config)
        channels = config.stem[1]
        self.out_channels: list[int] = []
        self._names = [f"blocks_s{number}" for number, _ in enumerate(config.stages, start=1)]
        for number, name in enumerate(self._names):
            stage, channels = _stage(channels, config.stages[number])
            setattr(self, name, stage)
            self.out_channels.append(channels)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, 3, H, W) to four maps at 1/4, 1/8, 1/16 and 1/32 of the size."""
        x = self.stem(x)
        maps = []
        for name in self._names:
            x = getattr(self, name)(x)
            maps.append(x)
        return maps
