"""The feature pyramids of DB detectors: four maps of a backbone become one map at a quarter of the page's size.

Upsampling is by nearest neighbour throughout, so the four inputs must halve exactly: pages are multiples of 32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import paddle
from paddle import nn

from ocr_finetune_trainer.models.common import SqueezeExcite

if TYPE_CHECKING:
    from paddle import Tensor


def plain_conv(in_channels: int, out_channels: int, *, kernel: int, stride: int = 1) -> nn.Conv2D:
    """A convolution without bias that keeps the size at stride 1, as all pyramids here use it."""
    return nn.Conv2D(
        in_channels,
        out_channels,
        kernel,
        stride=stride,
        padding=kernel // 2,
        weight_attr=paddle.ParamAttr(initializer=nn.initializer.KaimingUniform()),
        bias_attr=False,
    )


def upsample(x: Tensor, factor: int) -> Tensor:
    """(N, C, H, W) to (N, C, factor·H, factor·W) by nearest neighbour.

    An exported graph repeats pixels instead of interpolating: Paddle 3.3 writes the factors of its interpolation in
    double precision, which its own oneDNN executor refuses (`paddleocr` uses it on CPUs: "ConvertPirAttribute2Runtime-
    Attribute not support", issue 79749 of PaddlePaddle/Paddle), and which ends the process of paddle2onnx 2.1.
    """
    if paddle.in_dynamic_mode():
        return nn.functional.interpolate(x, scale_factor=factor, mode="nearest")
    repeated = paddle.tile(x.unsqueeze([3, 5]), [1, 1, 1, factor, 1, factor])
    return repeated.flatten(2, 3).flatten(3, 4)


def top_down(maps: Sequence[Tensor]) -> list[Tensor]:
    """Adds to each map the coarser ones, enlarged (https://arxiv.org/abs/1612.03144).

    Args:
        maps: Four maps of equal channels, fine to coarse.

    Returns:
        Four maps of the same shapes, fine to coarse.
    """
    c2, c3, c4, c5 = maps
    c4 = c4 + upsample(c5, 2)
    c3 = c3 + upsample(c4, 2)
    return [c2 + upsample(c3, 2), c3, c4, c5]


def fuse(maps: Sequence[Tensor]) -> Tensor:
    """Enlarges maps, fine to coarse, to the finest one's size and joins them along the channels, coarsest first."""
    p2, p3, p4, p5 = maps
    return paddle.concat([upsample(p5, 8), upsample(p4, 4), upsample(p3, 2), p2], axis=1)


class DBFPN(nn.Layer):
    """The pyramid of DB (https://arxiv.org/abs/1911.08947); parameters `in<2-5>_conv`, `p<2-5>_conv`.

    Args:
        in_channels: Channels of the backbone's four outputs.
        out_channels: Channels of the fused map; a multiple of 4.
    """

    def __init__(self, in_channels: Sequence[int], *, out_channels: int) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.levels = tuple(range(2, 2 + len(in_channels)))
        for level, channels in zip(self.levels, in_channels, strict=True):
            self.add_sublayer(f"in{level}_conv", plain_conv(channels, out_channels, kernel=1))
            self.add_sublayer(f"p{level}_conv", plain_conv(out_channels, out_channels // 4, kernel=3))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Four maps, fine to coarse, to (N, out_channels, H/4, W/4)."""
        # No `zip` here and below: Paddle's translator to a static graph knows no `strict`.
        inputs = [getattr(self, f"in{level}_conv")(maps[i]) for i, level in enumerate(self.levels)]
        summed = top_down(inputs)
        return fuse([getattr(self, f"p{level}_conv")(summed[i]) for i, level in enumerate(self.levels)])


class ResidualAttention(nn.Layer):
    """A convolution whose output is added to its own squeeze-and-excitation; parameters `in_conv`, `se_block`.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel: Side of the kernel.
    """

    def __init__(self, in_channels: int, out_channels: int, *, kernel: int) -> None:
        super().__init__()
        self.in_conv = plain_conv(in_channels, out_channels, kernel=kernel)
        self.se_block = SqueezeExcite(out_channels, slope=0.2)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, out_channels, H, W)."""
        x = self.in_conv(x)
        return x + self.se_block(x)


class RSEFPN(nn.Layer):
    """The pyramid of PP-OCRv3's student (https://arxiv.org/abs/2206.03001); parameters `ins_conv.*`, `inp_conv.*`.

    Args:
        in_channels: Channels of the backbone's four outputs.
        out_channels: Channels of the fused map; a multiple of 4.
    """

    def __init__(self, in_channels: Sequence[int], *, out_channels: int) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.ins_conv = nn.LayerList([ResidualAttention(c, out_channels, kernel=1) for c in in_channels])
        self.inp_conv = nn.LayerList(
            [ResidualAttention(out_channels, out_channels // 4, kernel=3) for _ in in_channels]
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Four maps, fine to coarse, to (N, out_channels, H/4, W/4)."""
        summed = top_down([conv(maps[i]) for i, conv in enumerate(self.ins_conv)])
        return fuse([conv(summed[i]) for i, conv in enumerate(self.inp_conv)])


class LKPAN(nn.Layer):
    """The path-aggregating pyramid with large kernels of PP-OCRv3's teacher (https://arxiv.org/abs/2206.03001).

    Parameters `ins_conv.*`, `inp_conv.*`, `pan_head_conv.*`, `pan_lat_conv.*`, and what `refine` makes under `incl1` to
    `incl4`.

    Args:
        in_channels: Channels of the backbone's four outputs.
        out_channels: Channels of the fused map; a multiple of 4.
        refine: Makes the last layer of each level from its channels.
    """

    def __init__(self, in_channels: Sequence[int], *, out_channels: int, refine: Callable[[int], nn.Layer]) -> None:
        super().__init__()
        self.out_channels = out_channels
        quarter = out_channels // 4
        self.ins_conv = nn.LayerList([plain_conv(c, out_channels, kernel=1) for c in in_channels])
        self.inp_conv = nn.LayerList([plain_conv(out_channels, quarter, kernel=9) for _ in in_channels])
        self.pan_head_conv = nn.LayerList([plain_conv(quarter, quarter, kernel=3, stride=2) for _ in in_channels[1:]])
        self.pan_lat_conv = nn.LayerList([plain_conv(quarter, quarter, kernel=9) for _ in in_channels])
        self.levels = tuple(range(1, 1 + len(in_channels)))
        for level in self.levels:
            self.add_sublayer(f"incl{level}", refine(quarter))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Four maps, fine to coarse, to (N, out_channels, H/4, W/4)."""
        summed = top_down([conv(maps[i]) for i, conv in enumerate(self.ins_conv)])
        narrowed = [conv(summed[i]) for i, conv in enumerate(self.inp_conv)]
        path = narrowed[:1]
        for i, down in enumerate(self.pan_head_conv):
            path.append(narrowed[i + 1] + down(path[i]))
        lateral = [conv(path[i]) for i, conv in enumerate(self.pan_lat_conv)]
        return fuse([getattr(self, f"incl{level}")(lateral[i]) for i, level in enumerate(self.levels)])


class IntraCollaboration(nn.Layer):
    """The intra-scale block of I3CL (https://arxiv.org/abs/2108.01343): square, tall and flat kernels, large to small.

    It joins the parts of a long or curved text line. Parameters `conv1x1_*_channel`, `c_layer_*`, `v_layer_*`,
    `q_layer_*` and `bn`.

    Args:
        channels: Channels of input and output.
        reduction: How much narrower the inner layers are; 2 in PP-OCR.
    """

    _SIDES = (7, 5, 3)

    def __init__(self, channels: int, *, reduction: int = 2) -> None:
        super().__init__()
        inner = channels // reduction
        self.conv1x1_reduce_channel = nn.Conv2D(channels, inner, 1)
        self.conv1x1_return_channel = nn.Conv2D(inner, channels, 1)
        for side in self._SIDES:
            half = side // 2
            self.add_sublayer(f"v_layer_{side}x1", nn.Conv2D(inner, inner, (side, 1), padding=(half, 0)))
            self.add_sublayer(f"q_layer_1x{side}", nn.Conv2D(inner, inner, (1, side), padding=(0, half)))
            self.add_sublayer(f"c_layer_{side}x{side}", nn.Conv2D(inner, inner, side, padding=half))
        self.bn = nn.BatchNorm2D(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) to the same shape."""
        y = self.conv1x1_reduce_channel(x)
        for side in self._SIDES:
            square, tall, flat = f"c_layer_{side}x{side}", f"v_layer_{side}x1", f"q_layer_1x{side}"
            y = getattr(self, square)(y) + getattr(self, tall)(y) + getattr(self, flat)(y)
        return x + nn.functional.relu(self.bn(self.conv1x1_return_channel(y)))
