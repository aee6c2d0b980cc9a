"""The head of SLANet: reads a table's structure token by token, and a box for every cell beside it.

A gated recurrent unit looks at the feature map through additive attention (https://arxiv.org/abs/1409.0473). Some things
are done once here that PaddleOCR does at every step: the projection of the feature map, the parts of the gates' weights,
and, in training, the layers that turn states into tokens and boxes. The numbers are the same.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import paddle
from paddle import nn
from paddle.nn import functional as F

from ocr_finetune_trainer.models.heads.greedy import GreedyHead

if TYPE_CHECKING:
    from paddle import Tensor

_HIDDEN = 256  # configs/table/SLANet.yml of PaddleOCR


def _linear(in_features: int, out_features: int) -> nn.Linear:
    bound = 1.0 / math.sqrt(in_features)

    def attribute() -> paddle.ParamAttr:
        return paddle.ParamAttr(
            initializer=nn.initializer.Uniform(-bound, bound), regularizer=paddle.regularizer.L2Decay(0.0)
        )

    return nn.Linear(in_features, out_features, weight_attr=attribute(), bias_attr=attribute())


class _AttentionCell(nn.Layer):
    """One step of the decoder; parameters `i2h`, `h2h`, `score`, `rnn.*` as PaddleOCR names them."""

    def __init__(self, in_channels: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.i2h = nn.Linear(in_channels, hidden, bias_attr=False)
        self.h2h = nn.Linear(hidden, hidden)
        self.score = nn.Linear(hidden, 1, bias_attr=False)
        self.rnn = nn.GRUCell(input_size=in_channels + classes, hidden_size=hidden)
        self._split = (in_channels, classes)

    def token_gates(self, tokens: Tensor) -> Tensor:
        """What tokens (N, …) add to the gates, (N, …, 3 * hidden): a one-hot vector times a matrix is a row of it."""
        _, rows = paddle.split(self.rnn.weight_ih, list(self._split), axis=1)
        return F.embedding(tokens, rows.transpose([1, 0])) + self.rnn.bias_ih

    def context_weights(self) -> Tensor:
        """What turns a context into gates, (3 * hidden, in_channels)."""
        columns, _ = paddle.split(self.rnn.weight_ih, list(self._split), axis=1)
        return columns

    def forward(self, state: Tensor, *, seen: tuple[Tensor, ...], token_gates: Tensor) -> Tensor:
        """The next state (N, hidden).

        Args:
            state: (N, hidden).
            seen: The feature map as a sequence (N, T, in_channels), `i2h` of it (N, T, hidden), and `context_weights`,
                which a training would keep once for every step if they were made there.
            token_gates: `token_gates` of the last token, (N, 3 * hidden).
        """
        features, projected, columns = seen
        energy = self.score(paddle.tanh(projected + self.h2h(state).unsqueeze(1)))
        attention = F.softmax(energy, axis=1)
        context = paddle.matmul(attention, features, transpose_x=True).squeeze(1)
        reset_x, update_x, new_x = paddle.split(
            paddle.matmul(context, columns, transpose_y=True) + token_gates, 3, axis=1
        )
        gates = paddle.matmul(state, self.rnn.weight_hh, transpose_y=True) + self.rnn.bias_hh
        reset_h, update_h, new_h = paddle.split(gates, 3, axis=1)
        update = F.sigmoid(update_x + update_h)
        candidate = paddle.tanh(new_x + F.sigmoid(reset_x + reset_h) * new_h)
        return (state - candidate) * update + candidate


class SLAHead(GreedyHead):
    """Structure and location of SLANet.

    Args:
        in_channels: Channels of the feature map.
        classes: Structure tokens with start (class 0) and end (the last class).
        box_numbers: Numbers of a box: 4 (left, top, right, bottom) or 8 (four corners).
        max_text_length: Tokens after which decoding gives up; one more step is made for the end.
    """

    def __init__(self, in_channels: int, *, classes: int, box_numbers: int, max_text_length: int = 500) -> None:
        super().__init__(hidden=_HIDDEN, classes=classes, box_numbers=box_numbers, max_text_length=max_text_length)
        self.structure_attention_cell = _AttentionCell(in_channels, _HIDDEN, classes)
        self.structure_generator = nn.Sequential(_linear(_HIDDEN, _HIDDEN), _linear(_HIDDEN, classes))
        self.loc_generator = nn.Sequential(_linear(_HIDDEN, _HIDDEN), _linear(_HIDDEN, box_numbers), nn.Sigmoid())

    def look(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What a cell's `seen` is for a feature map (N, in_channels, H, W)."""
        sequence, cell = features.flatten(2).transpose([0, 2, 1]), self.structure_attention_cell
        return sequence, cell.i2h(sequence), cell.context_weights()

    def step(self, state: Tensor, token: Tensor, seen: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """The next state, which is also what was found."""
        cell = self.structure_attention_cell
        state = cell(state, seen=seen, token_gates=cell.token_gates(token))
        return state, state

    def teach(self, features: Tensor, *, structure: Tensor, steps: int) -> dict[str, Tensor]:
        """Decodes with the true tokens as input.

        Args:
            features: (N, in_channels, H, W).
            structure: True classes, beginning with the start, int64 (N, L) with L >= `steps`.
            steps: Steps to decode: the longest structure of the batch + 1.

        Returns:
            `structure_probs`: logits (N, steps, classes); `loc_preds`: boxes in [0, 1], (N, steps, box_numbers).
        """
        seen = self.look(features)
        gates = self.structure_attention_cell.token_gates(structure[:, :steps]).unbind(axis=1)
        state = paddle.zeros([features.shape[0], _HIDDEN], dtype=seen[0].dtype)
        states = []
        for token_gates in gates:
            state = self.structure_attention_cell(state, seen=seen, token_gates=token_gates)
            states.append(state)
        stacked = paddle.stack(states, axis=1)
        return {"structure_probs": self.structure_generator(stacked), "loc_preds": self.loc_generator(stacked)}
