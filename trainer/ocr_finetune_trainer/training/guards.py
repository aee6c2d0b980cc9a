"""Notices training that goes wrong: gradients that are no numbers, a loss that runs away, a metric that stands still."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum

__all__ = ["Guard", "Limits", "Verdict", "is_plateau"]

_STALE = 5  # evaluations, where nothing ends training early


class Verdict(StrEnum):
    """What is to be done."""

    GO_ON = "go on"
    GO_BACK = "go back"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """When patience ends.

    Attributes:
        unusable: So many unusable steps within `within` are too many.
        within: Steps.
        window: Steps over which the loss is averaged.
        rise: The averaged loss may be at most so many times its lowest value, if it is also above its first one.
        rollbacks: How often training goes back before it gives up.
        rate_factor: What the learning rate is multiplied by when it does.
    """

    unusable: int = 5
    within: int = 100
    window: int = 50
    rise: float = 3.0
    rollbacks: int = 2
    rate_factor: float = 0.5


def is_plateau(stale: int, *, patience: int) -> bool:
    """Whether it is time to say that the metric stands still: once, half-way to the end of patience.

    Args:
        stale: Evaluations without an improvement.
        patience: So many end training; 0: none do.
    """
    return stale == (max(patience // 2, 1) if patience else _STALE)


@dataclass
class Guard:
    """Watches the steps of one process; fed with numbers that are equal on all ranks, it decides the same on each.

    Attributes:
        limits: When patience ends.
        suspects: Samples of the steps that went wrong, newest last.
        reason: What went wrong, in a clause.
    """

    limits: Limits = field(default_factory=Limits)
    suspects: deque[int] = field(default_factory=lambda: deque(maxlen=64))
    reason: str = ""
    _unusable: deque[int] = field(default_factory=deque)
    _recent: deque[float] = field(default_factory=deque)
    _lowest: float = math.inf
    _first: float = math.inf

    def watch(self, *, step: int, loss: float, finite: bool, samples: list[int]) -> Verdict:
        """Looks at a step.

        Args:
            step: Its number.
            loss: The loss over all ranks.
            finite: Whether the gradients were numbers.
            samples: The samples of this rank.
        """
        if not finite or not math.isfinite(loss):
            return self._count_unusable(step, samples)
        self._recent.append(loss)
        if len(self._recent) < self.limits.window:
            return Verdict.GO_ON
        if len(self._recent) > self.limits.window:
            self._recent.popleft()
        mean = math.fsum(self._recent) / len(self._recent)
        if math.isinf(self._first):
            self._first = mean
        self._lowest = min(self._lowest, mean)
        if mean > self.limits.rise * self._lowest and mean > self._first:
            self.suspects.extend(samples)
            self.reason = (
                f"the loss, {mean:.3g} on average, is over {self.limits.rise:g} times its lowest, {self._lowest:.3g}"
            )
            return Verdict.GO_BACK
        return Verdict.GO_ON

    def forget(self) -> None:
        """Begins anew, after training went back."""
        self._unusable.clear()
        self._recent.clear()
        self._lowest = self._first = math.inf

    def _count_unusable(self, step: int, samples: list[int]) -> Verdict:
        self.suspects.extend(samples)
        self._unusable.append(step)
        while self._unusable and self._unusable[0] <= step - self.limits.within:
            self._unusable.popleft()
        if len(self._unusable) < self.limits.unusable:
            return Verdict.GO_ON
        self.reason = (
            f"{len(self._unusable)} of the last {self.limits.within} steps had a loss or gradients that are no numbers"
        )
        return Verdict.GO_BACK
