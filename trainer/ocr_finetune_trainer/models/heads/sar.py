"""SAR's decoder (https://arxiv.org/abs/1811.00751), the guided branch of PP-OCRv3.

It trains the backbone and is left out of exports.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import paddle
from paddle import nn

if TYPE_CHECKING:
    from paddle import Tensor

SPECIALS = 3  # after the characters: unknown, start and end, padding; a character is its CTC class - 1


class _Encoder(nn.Layer):
    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.rnn_encoder = nn.LSTM(in_channels, width, num_layers=2, dropout=0.1)
        self.linear = nn.Linear(width, width)

    def forward(self, x: Tensor, valid_ratio: Tensor | None) -> Tensor:
        # (N, C, H, W) to what the whole line says (N, width)
        columns = x.max(axis=2).transpose([0, 2, 1])
        sequence = self.rnn_encoder(columns)[0]
        if valid_ratio is None:
            return self.linear(sequence[:, -1])
        last = (_valid_columns(valid_ratio, sequence.shape[1]) - 1).clip(min=0)
        index = paddle.stack([paddle.arange(x.shape[0], dtype="int64"), last], axis=1)
        return self.linear(paddle.gather_nd(sequence, index))


def _valid_columns(valid_ratio: Tensor, width: int) -> Tensor:
    # how many of `width` columns show the picture and not padding, (N,)
    return paddle.ceil(valid_ratio.astype("float32").reshape([-1]) * width).clip(max=width).astype("int64")


class _Decoder(nn.Layer):
    def __init__(self, in_channels: int, classes: int, width: int) -> None:
        super().__init__()
        self.conv1x1_1 = nn.Linear(width, width)
        self.conv3x3_1 = nn.Conv2D(in_channels, width, 3, padding=1)
        self.conv1x1_2 = nn.Linear(width, 1)
        self.rnn_decoder = nn.LSTM(width, width, num_layers=2)
        self.embedding = nn.Embedding(classes, width, padding_idx=classes - 1)
        self.pred_dropout = nn.Dropout(0.1)
        # padding is never predicted
        self.prediction = nn.Linear(2 * width + in_channels, classes - 1)

    def forward(self, x: Tensor, holistic: Tensor, labels: Tensor, valid_ratio: Tensor | None) -> Tensor:
        steps = paddle.concat([holistic.unsqueeze(1), self.embedding(labels)], axis=1)
        y = self.rnn_decoder(steps)[0]
        key = self.conv3x3_1(x).flatten(2).transpose([0, 2, 1])  # (N, H * W, width)
        score = self.conv1x1_2(paddle.tanh(key.unsqueeze(1) + self.conv1x1_1(y).unsqueeze(2))).squeeze(3)
        if valid_ratio is not None:
            column = paddle.arange(x.shape[2] * x.shape[3], dtype="int64") % x.shape[3]
            padding = column.unsqueeze(0) >= _valid_columns(valid_ratio, x.shape[3]).unsqueeze(1)
            score = paddle.where(padding.unsqueeze(1), paddle.full_like(score, float("-inf")), score)
        glimpse = paddle.matmul(nn.functional.softmax(score, axis=2), x.flatten(2), transpose_y=True)
        whole = holistic.unsqueeze(1).expand([-1, y.shape[1], -1])
        logits = self.prediction(paddle.concat([y, glimpse, whole], axis=2))
        # the first step is fed the whole line and predicts nothing
        return self.pred_dropout(logits)[:, 1:]


class SARHead(nn.Layer):
    """Reads the characters one after another, looking at the feature map for each; used in training only.

    Parameters `encoder.*`, `decoder.*`, among them `decoder.embedding.weight` (classes, width) and
    `decoder.prediction.weight` (2 * width + in_channels, classes - 1).

    Args:
        in_channels: Channels of the feature map.
        characters: Characters of the dictionary, with the space if used.
        width: Width of all layers, `enc_dim`.
    """

    def __init__(self, in_channels: int, *, characters: int, width: int) -> None:
        super().__init__()
        self.encoder = _Encoder(in_channels, width)
        self.decoder = _Decoder(in_channels, characters + SPECIALS, width)

    def forward(self, x: Tensor, labels: Tensor, *, valid_ratio: Tensor | None) -> Tensor:
        """Predicts each next class of known labels.

        Args:
            x: (N, in_channels, H, W).
            labels: (N, L) classes from start to end, padded with the last class. Columns beyond the longest label cost
                time and change nothing.
            valid_ratio: (N,) the share of the width that is not padding; `None` for all of it.

        Returns:
            Logits (N, L - 1, characters + 2) of `labels[:, 1:]`.
        """
        return self.decoder(x, self.encoder(x, valid_ratio), labels[:, :-1], valid_ratio)
