"""The pyramids of PP-OCRv6's detectors: large depth-wise kernels that are several dilated ones in training.

The idea is UniRepLKNet's (https://arxiv.org/abs/2311.15599): the branches cover the large kernel's field at several
spacings, and fold into it for use. Besides the fused map, training takes the three finer maps of the top-down path,
from which auxiliary heads learn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import paddle
from paddle import nn

from ocr_finetune_trainer.models.backbones.lcnetv4 import folded_norm
from ocr_finetune_trainer.models.common import SqueezeExcite
from ocr_finetune_trainer.models.necks.fpn import (
    IntraCollaboration,
    ResidualAttention,
    fuse,
    plain_conv,
    top_down,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from paddle import Tensor

# Kernel and dilation of the branches beside a kernel of this side (table 1 of the paper, as PaddleOCR has it).
_BRANCHES = {5: ((3, 1), (3, 2)), 7: ((5, 1), (3, 2), (3, 3)), 9: ((5, 1), (5, 2), (3, 3), (3, 4))}


class DilatedDepthwise(nn.Layer):
    """A large filter a channel and smaller dilated ones beside it, each normalised, added up.

    Parameters `lk_origin.weight`, `origin_bn.*`, `dil_conv_k<side>_<dilation>.weight`, `dil_bn_k<side>_<dilation>.*`;
    after `fuse` `lk_origin.weight` and `lk_origin.bias` alone.

    Args:
        channels: Channels of input and output.
        kernel: Side of the large kernel: 5, 7 or 9.
    """

    def __init__(self, channels: int, *, kernel: int) -> None:
        super().__init__()
        self.channels = channels
        self.kernel = kernel
        self.branches = _BRANCHES[kernel]
        self.lk_origin = nn.Conv2D(channels, channels, kernel, padding=kernel // 2, groups=channels, bias_attr=False)
        self.origin_bn: nn.Layer | None = nn.BatchNorm2D(channels)
        for side, dilation in self.branches:
            padding = dilation * (side - 1) // 2
            conv = nn.Conv2D(
                channels, channels, side, padding=padding, dilation=dilation, groups=channels, bias_attr=False
            )
            setattr(self, f"dil_conv_k{side}_{dilation}", conv)
            setattr(self, f"dil_bn_k{side}_{dilation}", nn.BatchNorm2D(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W), kept."""
        if self.origin_bn is None:
            return self.lk_origin(x)
        out = self.origin_bn(self.lk_origin(x))
        for side, dilation in self.branches:
            conv = getattr(self, f"dil_conv_k{side}_{dilation}")
            out = out + getattr(self, f"dil_bn_k{side}_{dilation}")(conv(x))
        return out

    @paddle.no_grad()
    def fuse(self) -> None:
        """Folds the branches and their running statistics into the large kernel; once done it does nothing."""
        if self.origin_bn is None:
            return
        factor, bias = folded_norm(self.origin_bn)
        kernel = self.lk_origin.weight * factor
        for side, dilation in self.branches:
            conv, norm = f"dil_conv_k{side}_{dilation}", f"dil_bn_k{side}_{dilation}"
            factor, more = folded_norm(getattr(self, norm))
            bias = bias + more
            # A dilated kernel is a larger one with zeros between its entries.
            reach = dilation * (side - 1) // 2
            start = self.kernel // 2 - reach
            spread = paddle.zeros([self.channels, 1, self.kernel, self.kernel])
            places = paddle.arange(start, start + 2 * reach + 1, dilation)
            rows = places.reshape([-1, 1]).expand([side, side]).flatten()
            columns = places.reshape([1, -1]).expand([side, side]).flatten()
            spread[:, 0, rows, columns] = (getattr(self, conv).weight * factor).reshape([self.channels, side * side])
            kernel = kernel + spread
            setattr(self, conv, None)
            setattr(self, norm, None)
        fused = nn.Conv2D(self.channels, self.channels, self.kernel, padding=self.kernel // 2, groups=self.channels)
        fused.weight.set_value(kernel)
        fused.bias.set_value(bias)
        self.lk_origin = fused
        self.origin_bn = None


class _LargeKernel(nn.Layer):
    def __init__(self, in_channels: int, out_channels: int, *, kernel: int) -> None:
        super().__init__()
        self.dw = DilatedDepthwise(in_channels, kernel=kernel)
        self.pw = plain_conv(in_channels, out_channels, kernel=1)
        self.bn = nn.BatchNorm2D(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.pw(self.dw(x)))


class RepLKFPN(nn.Layer):
    """The pyramid of the tiny and small detectors: `RSEFPN` with large depth-wise kernels.

    Parameters `ins_conv.*`, `inp_conv_dw.*`, `inp_conv_pw.*`, `inp_conv_se.*`.

    Args:
        in_channels: Channels of the backbone's four outputs.
        out_channels: Channels of the fused map; a multiple of 4.
        kernel: Side of the large kernels.
    """

    def __init__(self, in_channels: Sequence[int], *, out_channels: int, kernel: int) -> None:
        super().__init__()
        self.out_channels = out_channels
        quarter = out_channels // 4
        self.ins_conv = nn.LayerList([ResidualAttention(c, out_channels, kernel=1) for c in in_channels])
        self.inp_conv_dw = nn.LayerList([DilatedDepthwise(out_channels, kernel=kernel) for _ in in_channels])
        self.inp_conv_pw = nn.LayerList([plain_conv(out_channels, quarter, kernel=1) for _ in in_channels])
        self.inp_conv_se = nn.LayerList([SqueezeExcite(quarter, slope=0.2) for _ in in_channels])

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Four maps, fine to coarse, to (N, out_channels, H/4, W/4)."""
        return self.with_levels(maps)[0]

    def with_levels(self, maps: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """The fused map, and the top-down path's maps at 1/4, 1/8 and 1/16, (N, out_channels, …) each."""
        summed = top_down([conv(maps[i]) for i, conv in enumerate(self.ins_conv)])
        narrowed = []
        for i, depthwise in enumerate(self.inp_conv_dw):
            narrow = self.inp_conv_pw[i](depthwise(summed[i]))
            narrowed.append(narrow + self.inp_conv_se[i](narrow))
        return fuse(narrowed), summed[:3]


class RepLKPAN(nn.Layer):
    """The pyramid of the medium detector: `LKPAN` with large depth-wise kernels and the intra-scale block.

    Parameters `ins_conv.*`, `inp_conv.*`, `pan_head_conv.*`, `pan_lat_conv.*`, `incl1.*` to `incl4.*`.

    Args:
        in_channels: Channels of the backbone's four outputs.
        out_channels: Channels of the fused map; a multiple of 4.
    """

    def __init__(self, in_channels: Sequence[int], *, out_channels: int) -> None:
        super().__init__()
        self.out_channels = out_channels
        quarter = out_channels // 4
        self.ins_conv = nn.LayerList([plain_conv(c, out_channels, kernel=1) for c in in_channels])
        self.inp_conv = nn.LayerList([_LargeKernel(out_channels, quarter, kernel=9) for _ in in_channels])
        self.pan_head_conv = nn.LayerList([plain_conv(quarter, quarter, kernel=3, stride=2) for _ in in_channels[1:]])
        self.pan_lat_conv = nn.LayerList([_LargeKernel(quarter, quarter, kernel=9) for _ in in_channels])
        self.levels = tuple(range(1, 1 + len(in_channels)))
        for level in self.levels:
            self.add_sublayer(f"incl{level}", IntraCollaboration(quarter))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Four maps, fine to coarse, to (N, out_channels, H/4, W/4)."""
        return self.with_levels(maps)[0]

    def with_levels(self, maps: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """The fused map, and the top-down path's maps at 1/4, 1/8 and 1/16, (N, out_channels, …) each."""
        summed = top_down([conv(maps[i]) for i, conv in enumerate(self.ins_conv)])
        path: list[Tensor] = []
        for i, conv in enumerate(self.inp_conv):
            narrow = conv(summed[i])
            path.append(narrow if i == 0 else narrow + self.pan_head_conv[i - 1](path[i - 1]))
        lateral = [conv(path[i]) for i, conv in enumerate(self.pan_lat_conv)]
        refined = [getattr(self, f"incl{level}")(lateral[i]) for i, level in enumerate(self.levels)]
        return fuse(refined), summed[:3]
