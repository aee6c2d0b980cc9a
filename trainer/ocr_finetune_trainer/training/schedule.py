"""The learning rate as a pure function of the step: nothing to store, nothing to restore.

The shapes follow PaddleOCR's curves, so that its published rates mean the same here: the rate of step `t` is the one in
force *before* step `t`, warm-up is linear from 0, and cosine and piecewise count their steps from its end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["SAMPLES_EVERY", "Schedule", "Shape"]

# Steps between two looks at the losses of single samples, by which sources are told apart.
SAMPLES_EVERY = 10

Shape = Literal["cosine", "piecewise", "one-cycle", "linear", "constant"]

# One-cycle (https://arxiv.org/abs/1708.07120): the part of training in which the rate rises, and how far below the peak
# it starts and ends.
_RISING = 0.3
_START_DIVISOR = 25.0
_END_DIVISOR = 1e4


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How the learning rate changes.

    Attributes:
        shape: Its shape.
        peak: The highest rate.
        steps: Steps of the whole training.
        warmup: Steps of linear warm-up.
        boundaries: piecewise: steps after warm-up at which the rate drops, rising.
        factor: piecewise: what the rate is multiplied by at each boundary.
        extended_from: Where training was first planned to end, if epochs were added to a run that had begun; 0 if none
            were. The added steps begin at a tenth of the peak, stay there for half of them, and fall to 0 as a cosine.
    """

    shape: Shape
    peak: float
    steps: int
    warmup: int = 0
    boundaries: Sequence[int] = ()
    factor: float = 0.2
    extended_from: int = 0

    def __call__(self, step: int) -> float:
        """The rate of step `step`, counted from 0."""
        if self.extended_from and step >= self.extended_from:
            return self._added(step - self.extended_from, self.steps - self.extended_from)
        total = self.extended_from or self.steps
        if self.shape == "one-cycle":
            return self._one_cycle(step, total)
        if step < self.warmup:
            return self.peak * step / self.warmup
        after = step - self.warmup
        if self.shape == "cosine":
            return 0.5 * self.peak * (1.0 + math.cos(math.pi * min(after / max(total, 1), 1.0)))
        if self.shape == "piecewise":
            return self.peak * self.factor ** sum(after >= boundary for boundary in self.boundaries)
        if self.shape == "linear":
            return self.peak * max(1.0 - after / max(total, 1), 0.0)
        return self.peak

    def _one_cycle(self, step: int, total: int) -> float:
        rising = max(round(total * _RISING), 1)
        if step < rising:
            return _between(self.peak / _START_DIVISOR, self.peak, step / rising)
        return _between(self.peak, self.peak / _END_DIVISOR, min((step - rising) / max(total - rising, 1), 1.0))

    def _added(self, step: int, total: int) -> float:
        level, flat = self.peak / 10, total // 2
        if step < flat:
            return level
        return 0.5 * level * (1.0 + math.cos(math.pi * min((step - flat) / max(total - flat, 1), 1.0)))


def _between(start: float, end: float, part: float) -> float:
    """From `start` to `end` along half a cosine."""
    return end + 0.5 * (start - end) * (1.0 + math.cos(math.pi * part))
