"""A head that knows by itself what has been written, and looks into the picture for what comes next.

SLANet's decoder feeds what it sees back into its state, so training must go through a table token by token. Here the
state depends on the tokens alone: it says which cell is next, and the picture is only asked whether there is one. All
steps of training are computed at once, which on a CPU is several times faster, and counting is learnt from tokens,
which are certain, instead of from attention, which is not.
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

__all__ = ["PrefixHead"]

_LOOKS = 2  # attention heads: where the column is and where the row is


class PrefixHead(GreedyHead):
    """Structure and location from a sequence of places.

    Args:
        channels: Channels of a place, and width of the state.
        classes: Structure tokens with start (class 0) and end (the last class).
        box_numbers: Numbers of a box.
    """

    def __init__(self, channels: int, *, classes: int, box_numbers: int) -> None:
        super().__init__(hidden=channels, classes=classes, box_numbers=box_numbers)
        self.embedding = nn.Embedding(classes, channels)
        self.written = nn.GRU(channels, channels)
        self.query = nn.Linear(channels, _LOOKS * channels)
        self.key = nn.Linear(channels, _LOOKS * channels)
        self.value = nn.Linear(channels, _LOOKS * channels)
        self.join = nn.Linear((1 + _LOOKS) * channels, channels)
        self.structure_generator = nn.Linear(channels, classes)
        self.loc_generator = nn.Sequential(nn.Linear(channels, box_numbers), nn.Sigmoid())

    def look(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Places (N, T, channels) as keys (N, looks, channels, T) and values (N, looks, T, channels)."""
        keys, values = (self._apart(layer(features)) for layer in (self.key, self.value))
        return keys.transpose([0, 1, 3, 2]), values

    def teach(self, features: Tensor, *, structure: Tensor, steps: int) -> dict[str, Tensor]:
        """Decodes with the true tokens as input.

        Args:
            features: (N, T, channels).
            structure: True classes, beginning with the start, int64 (N, L) with L >= `steps`.
            steps: Steps to decode: the longest structure of the batch + 1.

        Returns:
            `structure_probs`: logits (N, steps, classes); `loc_preds`: boxes in [0, 1], (N, steps, box_numbers).
        """
        states, _ = self.written(self.embedding(structure[:, :steps]))
        found = self._found(states, self.look(features))
        return {"structure_probs": self.structure_generator(found), "loc_preds": self.loc_generator(found)}

    def step(self, state: Tensor, token: Tensor, seen: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """One step of `written`, spelt out so that it can stand in a graph's loop, and a look."""
        weights = self.written
        from_token = paddle.matmul(self.embedding(token), weights.weight_ih_l0, transpose_y=True) + weights.bias_ih_l0
        from_state = paddle.matmul(state, weights.weight_hh_l0, transpose_y=True) + weights.bias_hh_l0
        reset_x, update_x, new_x = paddle.split(from_token, 3, axis=1)
        reset_h, update_h, new_h = paddle.split(from_state, 3, axis=1)
        update = F.sigmoid(update_x + update_h)
        candidate = paddle.tanh(new_x + F.sigmoid(reset_x + reset_h) * new_h)
        state = (state - candidate) * update + candidate
        return state, self._found(state.unsqueeze(1), seen).squeeze(1)

    def _found(self, states: Tensor, seen: tuple[Tensor, ...]) -> Tensor:
        """States (N, steps, channels) and where they look: (N, steps, channels)."""
        keys, values = seen
        queries = self._apart(self.query(states)) / math.sqrt(self.hidden)
        looked = paddle.matmul(F.softmax(paddle.matmul(queries, keys), axis=-1), values)
        together = looked.transpose([0, 2, 1, 3]).flatten(2)
        return F.relu(self.join(paddle.concat([states, together], axis=-1)))

    def _apart(self, x: Tensor) -> Tensor:
        """(N, T, looks · channels) to (N, looks, T, channels)."""
        return x.reshape([0, 0, _LOOKS, self.hidden]).transpose([0, 2, 1, 3])
