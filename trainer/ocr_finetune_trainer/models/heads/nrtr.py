"""NRTR's decoder (https://arxiv.org/abs/1806.00926), the guided branch of PP-OCRv4 and v5.

It trains the backbone and is left out of exports.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import paddle
from paddle import nn

from ocr_finetune_trainer.models.necks.svtr import Mlp

if TYPE_CHECKING:
    from paddle import Tensor

SPECIALS = 4  # padding, unknown, start, end: classes 0 to 3; a character is its CTC class + 3
_LONGEST = 5000  # rows of the table of positions, as in PaddleOCR's files
_DROPOUT = 0.1


class MultiHeadAttention(nn.Layer):
    """Scaled dot-product attention; parameters `qkv.*`, or `q.*` and `kv.*` across sequences, and `out_proj.*`.

    Args:
        width: Width of both sequences.
        heads: Attention heads.
        across: Whether keys and values come from another sequence.
    """

    def __init__(self, width: int, *, heads: int, across: bool) -> None:
        super().__init__()
        self.heads = heads
        self.width = width
        self.across = across
        if across:
            self.q = nn.Linear(width, width)
            self.kv = nn.Linear(width, 2 * width)
        else:
            self.qkv = nn.Linear(width, 3 * width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor, *, memory: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Lets `x` look at `memory`, or at itself.

        Args:
            x: (N, L, width).
            memory: (N, T, width), for attention across.
            mask: (L, L), added to the scores.

        Returns:
            (N, L, width).
        """
        if self.across:
            query = self._split(self.q(x), parts=1)[0]
            key, value = self._split(self.kv(memory), parts=2)
        else:
            query, key, value = self._split(self.qkv(x), parts=3)
        scores = paddle.matmul(query, key, transpose_y=True) * (self.width // self.heads) ** -0.5
        if mask is not None:
            scores = scores + mask
        mixed = paddle.matmul(nn.functional.softmax(scores, axis=-1), value)
        return self.out_proj(mixed.transpose([0, 2, 1, 3]).reshape([0, -1, self.width]))

    def _split(self, x: Tensor, *, parts: int) -> list[Tensor]:
        # (N, L, parts * width) to `parts` times (N, heads, L, width / heads)
        split = x.reshape([0, x.shape[1], parts, self.heads, self.width // self.heads]).transpose([2, 0, 3, 1, 4])
        return [split[i] for i in range(parts)]


class _DecoderBlock(nn.Layer):
    def __init__(self, width: int, *, heads: int) -> None:
        super().__init__()
        self.self_attn = MultiHeadAttention(width, heads=heads, across=False)
        self.norm1 = nn.LayerNorm(width, epsilon=1e-5)
        self.cross_attn = MultiHeadAttention(width, heads=heads, across=True)
        self.norm2 = nn.LayerNorm(width, epsilon=1e-5)
        self.mlp = Mlp(width, hidden=4 * width, activation=nn.ReLU(), dropout=_DROPOUT)
        self.norm3 = nn.LayerNorm(width, epsilon=1e-5)
        self.drop = nn.Dropout(_DROPOUT)

    def forward(self, x: Tensor, *, memory: Tensor, mask: Tensor) -> Tensor:
        x = self.norm1(x + self.drop(self.self_attn(x, mask=mask)))
        x = self.norm2(x + self.drop(self.cross_attn(x, memory=memory)))
        return self.norm3(x + self.drop(self.mlp(x)))


class _Embedding(nn.Layer):
    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        start = paddle.ParamAttr(initializer=nn.initializer.Normal(0.0, width**-0.5))
        self.embedding = nn.Embedding(classes, width, padding_idx=0, weight_attr=start)
        self.factor = math.sqrt(width)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.embedding(tokens) * self.factor


class _Positions(nn.Layer):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.drop = nn.Dropout(_DROPOUT)
        position = paddle.arange(_LONGEST, dtype="float32").unsqueeze(1)
        angle = position * paddle.exp(paddle.arange(0, width, 2, dtype="float32") * (-math.log(10000.0) / width))
        # sine and cosine alternate along the width
        table = paddle.stack([paddle.sin(angle), paddle.cos(angle)], axis=2).reshape([_LONGEST, 1, width])
        self.register_buffer("pe", table)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(x + self.pe[: x.shape[1]].transpose([1, 0, 2]))


def _start(layer: nn.Layer) -> None:
    if isinstance(layer, nn.Linear):
        nn.initializer.XavierNormal()(layer.weight)
        if layer.bias is not None:
            nn.initializer.Constant(0.0)(layer.bias)


class NRTRHead(nn.Layer):
    """Reads the characters one after another with the frames in sight; used in training only.

    Parameters `embedding.embedding.weight` (classes, width), `decoder.<i>.*`, `tgt_word_prj.weight` (width, classes).

    Args:
        characters: Characters of the dictionary, with the space if used.
        width: Width of frames and embeddings.
        layers: Decoder blocks.
    """

    def __init__(self, *, characters: int, width: int, layers: int = 4) -> None:
        super().__init__()
        # PaddleOCR counts one class more than it uses
        classes = characters + SPECIALS + 1
        self.embedding = _Embedding(classes, width)
        self.positional_encoding = _Positions(width)
        self.decoder = nn.LayerList(_DecoderBlock(width, heads=width // 32) for _ in range(layers))
        self.tgt_word_prj = nn.Linear(width, classes, bias_attr=False)
        self.apply(_start)

    def forward(self, frames: Tensor, labels: Tensor) -> Tensor:
        """Predicts each next class of known labels.

        Args:
            frames: (N, T, width).
            labels: (N, L) classes from `start` to `end`, padded with 0. Columns beyond the longest label cost time and
                change nothing.

        Returns:
            Logits (N, L - 1, classes) of `labels[:, 1:]`.
        """
        length = labels.shape[1] - 1
        mask = paddle.triu(paddle.full([length, length], float("-inf")), diagonal=1)
        x = self.positional_encoding(self.embedding(labels[:, :-1]))
        for block in self.decoder:
            x = block(x, memory=frames, mask=mask)
        return self.tgt_word_prj(x)
