"""The SVTR encoder of PP-OCRv3 and later: two global attention blocks between convolutions (https://arxiv.org/abs/2205.00159)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import paddle
from paddle import nn

from ocr_finetune_trainer.models.necks.sequence import to_sequence

if TYPE_CHECKING:
    from paddle import Tensor

_HEADS = 8
_MLP_RATIO = 2.0
_DROPOUT = 0.1


def _start(layer: nn.Layer) -> None:
    # as in SVTR: truncated normal of 0.02 for linear layers
    if isinstance(layer, nn.Linear):
        nn.initializer.TruncatedNormal(std=0.02)(layer.weight)
        if layer.bias is not None:
            nn.initializer.Constant(0.0)(layer.bias)


class ConvSwish(nn.Layer):
    """Convolution, batch normalisation, swish; parameters `conv.*` and `norm.*`.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel: Height and width of the kernel; the padding keeps the size.
    """

    def __init__(self, in_channels: int, out_channels: int, *, kernel: tuple[int, int] = (1, 1)) -> None:
        super().__init__()
        self.conv = nn.Conv2D(
            in_channels,
            out_channels,
            kernel,
            padding=[kernel[0] // 2, kernel[1] // 2],
            weight_attr=paddle.ParamAttr(initializer=nn.initializer.KaimingUniform()),
            bias_attr=False,
        )
        self.norm = nn.BatchNorm2D(out_channels)
        self.act = nn.Swish()

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, out_channels, H, W)."""
        return self.act(self.norm(self.conv(x)))


class GlobalAttention(nn.Layer):
    """Multi-head attention over all frames; parameters `qkv.*` and `proj.*`.

    Args:
        width: Width of a frame.
        heads: Attention heads.
        dropout: Of the attention and of the output, in training.
    """

    def __init__(self, width: int, *, heads: int = _HEADS, dropout: float = _DROPOUT) -> None:
        super().__init__()
        self.heads = heads
        self.width = width
        self.scale = (width // heads) ** -0.5
        self.qkv = nn.Linear(width, 3 * width)
        self.attn_drop = nn.Dropout(dropout)
        self.proj = nn.Linear(width, width)
        self.proj_drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, width), kept."""
        qkv = self.qkv(x).reshape([0, -1, 3, self.heads, self.width // self.heads]).transpose([2, 0, 3, 1, 4])
        weight = nn.functional.softmax(paddle.matmul(qkv[0] * self.scale, qkv[1], transpose_y=True), axis=-1)
        mixed = paddle.matmul(self.attn_drop(weight), qkv[2])
        return self.proj_drop(self.proj(mixed.transpose([0, 2, 1, 3]).reshape([0, -1, self.width])))


class Mlp(nn.Layer):
    """Two linear layers; parameters `fc1.*` and `fc2.*`.

    Args:
        width: Width of input and output.
        hidden: Width between.
        activation: What stands between the layers.
        dropout: After each layer, in training.
    """

    def __init__(self, width: int, *, hidden: int, activation: nn.Layer, dropout: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.act = activation
        self.fc2 = nn.Linear(hidden, width)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(…, width), kept."""
        return self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))


class SVTRBlock(nn.Layer):
    """Attention and two linear layers, each normalised before and added to what came in.

    Args:
        width: Width of a frame.
        mlp_ratio: Width between the linear layers, in multiples of `width`.
    """

    def __init__(self, width: int, *, mlp_ratio: float = _MLP_RATIO) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, epsilon=1e-5)
        self.mixer = GlobalAttention(width)
        self.norm2 = nn.LayerNorm(width, epsilon=1e-5)
        self.mlp = Mlp(width, hidden=int(width * mlp_ratio), activation=nn.Swish(), dropout=_DROPOUT)

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, width), kept."""
        x = x + self.mixer(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class _SVTREncoder(nn.Layer):
    def __init__(self, in_channels: int, *, width: int, hidden: int, depth: int, kernel: tuple[int, int]) -> None:
        super().__init__()
        reduced = in_channels // 8
        self.conv1 = ConvSwish(in_channels, reduced, kernel=kernel)
        self.conv2 = ConvSwish(reduced, hidden)
        self.svtr_block = nn.LayerList(SVTRBlock(hidden) for _ in range(depth))
        self.norm = nn.LayerNorm(hidden, epsilon=1e-6)
        self.conv3 = ConvSwish(hidden, in_channels)
        self.conv4 = ConvSwish(2 * in_channels, reduced, kernel=kernel)
        self.conv1x1 = ConvSwish(reduced, width)
        self.apply(_start)

    def forward(self, x: Tensor) -> Tensor:
        z = to_sequence(self.conv2(self.conv1(x)))
        for block in self.svtr_block:
            z = block(z)
        z = self.conv3(self.norm(z).transpose([0, 2, 1]).unsqueeze(2))
        return self.conv1x1(self.conv4(paddle.concat([x, z], axis=1)))


class SVTRNeck(nn.Layer):
    """The SVTR encoder as a neck; parameters `encoder.*`.

    Args:
        in_channels: Channels of the feature map.
        width: Width of a frame that comes out.
        hidden: Width in the attention blocks.
        depth: Attention blocks.
        kernel: Height and width of the first and the fusing convolution.
        detached: Whether the gradient ends here. PaddleOCR calls it `use_guide`: the guided branch alone then trains
            the backbone. Without a guided branch it must be off, or the backbone stands still.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        width: int,
        hidden: int,
        depth: int,
        kernel: tuple[int, int],
        detached: bool,
    ) -> None:
        super().__init__()
        self.detached = detached
        self.encoder = _SVTREncoder(in_channels, width=width, hidden=hidden, depth=depth, kernel=kernel)
        self.out_channels = width

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, 1, W) to (N, W, width)."""
        return to_sequence(self.encoder(x.detach() if self.detached else x))
