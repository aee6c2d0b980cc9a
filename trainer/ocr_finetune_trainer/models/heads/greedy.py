"""Greedy decoding of a table: token after token, in Python and as a loop of an exported graph.

What a step does is a head's own affair; that every step feeds its best token to the next, when a batch has ended, and
how the loop is written so that Paddle and ONNX can run it, is the same for all.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import paddle
from paddle import nn
from paddle.nn import functional as F

if TYPE_CHECKING:
    from paddle import Tensor

__all__ = ["GreedyHead"]


class GreedyHead(nn.Layer):
    """A head that reads a table's structure token by token, and a box for every cell beside it.

    A subclass has the layers `structure_generator` and `loc_generator`, which turn what a step found (N, found) into
    logits (N, classes) and a box in [0, 1] (N, box_numbers).

    Args:
        hidden: Width of the state.
        classes: Structure tokens with start (class 0) and end (the last class).
        box_numbers: Numbers of a box: 4 (left, top, right, bottom) or 8 (four corners).
        max_text_length: Tokens after which decoding gives up; one more step is made for the end.
    """

    structure_generator: nn.Layer
    loc_generator: nn.Layer

    def __init__(self, *, hidden: int, classes: int, box_numbers: int, max_text_length: int = 500) -> None:
        super().__init__()
        self.hidden = hidden
        self.classes = classes
        self.box_numbers = box_numbers
        self.max_text_length = max_text_length

    @abstractmethod
    def look(self, features: Tensor) -> tuple[Tensor, ...]:
        """What all steps look at, computed once."""

    @abstractmethod
    def step(self, state: Tensor, token: Tensor, seen: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """One step.

        Args:
            state: (N, hidden).
            token: The last token, int64 (N,).
            seen: What `look` gave.

        Returns:
            The next state (N, hidden), and what was found (N, found).
        """

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """Decodes greedily until every sample of the batch has ended, or the limit is reached.

        Args:
            features: What `look` takes.

        Returns:
            `loc_preds`: boxes in [0, 1], (N, steps, box_numbers); `structure_probs`: probabilities (N, steps, classes).
            `paddleocr` reads an export's outputs in this order.
        """
        seen = self.look(features)
        decode = self._decode if paddle.in_dynamic_mode() else self._decode_in_graph
        logits, boxes = decode(seen)
        return {"loc_preds": boxes, "structure_probs": F.softmax(logits, axis=-1)}

    def _decode(self, seen: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        samples = seen[0].shape[0]
        state = paddle.zeros([samples, self.hidden], dtype=seen[0].dtype)
        token = paddle.zeros([samples], dtype="int64")
        ended = paddle.zeros([samples], dtype="bool")
        found, logits = [], []
        for _ in range(self.max_text_length + 1):
            state, here = self.step(state, token, seen)
            scores = self.structure_generator(here)
            found.append(here)
            logits.append(scores)
            token = scores.argmax(axis=1)
            ended = paddle.logical_or(ended, token == self.classes - 1)
            if bool(ended.all()):
                break
        return paddle.stack(logits, axis=1), self.loc_generator(paddle.stack(found, axis=1))

    def _decode_in_graph(self, seen: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """The same as a loop of the graph, for export: fixed buffers, cut at the step where the loop ended."""
        limit = self.max_text_length + 1
        samples = paddle.shape(seen[0])[0]
        state = paddle.zeros([samples, self.hidden], dtype="float32")
        token = paddle.zeros([samples], dtype="int64")
        ended = paddle.zeros([samples], dtype="int32")
        logits = paddle.zeros([samples, limit, self.classes], dtype="float32")
        boxes = paddle.zeros([samples, limit, self.box_numbers], dtype="float32")
        step = paddle.zeros([1], dtype="int64")

        def going_on(step: Tensor, state: Tensor, token: Tensor, ended: Tensor, *_: Tensor) -> Tensor:
            del state, token
            return paddle.logical_and(step < limit, ended.min(keepdim=True) < 1)

        def advance(  # noqa: PLR0917 - the graph's loop passes its variables by position
            step: Tensor, state: Tensor, token: Tensor, ended: Tensor, logits: Tensor, boxes: Tensor
        ) -> list[Any]:
            state, found = self.step(state, token, seen)
            scores = self.structure_generator(found)
            token = scores.argmax(axis=1)
            ended = paddle.maximum(ended, (token == self.classes - 1).astype("int32"))
            here = (paddle.arange(limit, dtype="int64") == step).astype("float32").reshape([1, limit, 1])
            logits = logits + here * scores.unsqueeze(1)
            boxes = boxes + here * self.loc_generator(found).unsqueeze(1)
            return [step + 1, state, token, ended, logits, boxes]

        step, _, _, _, logits, boxes = paddle.static.nn.while_loop(
            going_on, advance, [step, state, token, ended, logits, boxes]
        )
        return (
            paddle.slice(logits, axes=[1], starts=[0], ends=step),
            paddle.slice(boxes, axes=[1], starts=[0], ends=step),
        )
