"""The light SVTR encoder of PP-OCRv6: what a frame's neighbours show, then two attention blocks, and a short cut."""

from __future__ import annotations

from typing import TYPE_CHECKING

import paddle
from paddle import nn

from ocr_finetune_trainer.models.necks.sequence import to_sequence
from ocr_finetune_trainer.models.necks.svtr import ConvSwish, SVTRBlock

if TYPE_CHECKING:
    from paddle import Tensor

_LOCAL_KERNEL = 7


class _LightEncoder(nn.Layer):
    def __init__(self, in_channels: int, *, width: int, depth: int, mlp_ratio: float) -> None:
        super().__init__()
        self.conv_reduce = ConvSwish(in_channels, width)
        self.local_conv = nn.Sequential(
            nn.Conv2D(
                width,
                width,
                (1, _LOCAL_KERNEL),
                padding=(0, _LOCAL_KERNEL // 2),
                groups=width,
                weight_attr=paddle.ParamAttr(initializer=nn.initializer.KaimingUniform()),
                bias_attr=False,
            ),
            nn.BatchNorm2D(width),
            nn.Swish(),
        )
        self.svtr_block = nn.LayerList(SVTRBlock(width, mlp_ratio=mlp_ratio) for _ in range(depth))
        self.norm = nn.LayerNorm(width, epsilon=1e-6)
        self.skip_conv = ConvSwish(in_channels, width)

    def forward(self, x: Tensor) -> Tensor:
        short_cut = self.skip_conv(x)
        x = self.conv_reduce(x)
        frames = to_sequence(x + self.local_conv(x))
        for block in self.svtr_block:
            frames = block(frames)
        return self.norm(frames) + to_sequence(short_cut)


class LightSVTRNeck(nn.Layer):
    """The encoder as a neck; parameters `encoder.*`.

    Args:
        in_channels: Channels of the feature map.
        width: Width of a frame that comes out.
        depth: Attention blocks.
        mlp_ratio: Width between a block's linear layers, in multiples of `width`.
    """

    def __init__(self, in_channels: int, *, width: int, depth: int, mlp_ratio: float) -> None:
        super().__init__()
        self.encoder = _LightEncoder(in_channels, width=width, depth=depth, mlp_ratio=mlp_ratio)
        self.out_channels = width

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, 1, W) to (N, W, width)."""
        return self.encoder(x)
