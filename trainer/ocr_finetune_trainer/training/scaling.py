"""Dynamic loss scaling for fp16: small gradients are lifted over what fp16 can hold, and put back before the update."""

from __future__ import annotations

__all__ = ["LossScale"]

_FIRST = 2.0**15
_GROW_AFTER = 2000
_LEAST, _MOST = 1.0, 2.0**24


class LossScale:
    """The factor of the loss.

    Attributes:
        enabled: Whether there is one; else it is 1.
        value: The factor of the next step.
        value_before: The factor of the step whose gradients were looked at last.
        good_steps: Steps since it changed.
    """

    def __init__(self, *, enabled: bool) -> None:
        self.enabled = enabled
        self.value = self.value_before = _FIRST if enabled else 1.0
        self.good_steps = 0

    def update(self, *, finite: bool) -> None:
        """Halves it after gradients that overflowed, doubles it after many that did not."""
        self.value_before = self.value
        if not self.enabled:
            return
        self.good_steps = self.good_steps + 1 if finite else 0
        if not finite:
            self.value = max(self.value / 2, _LEAST)
        elif self.good_steps >= _GROW_AFTER:
            self.value = min(self.value * 2, _MOST)
            self.good_steps = 0

    def restore(self, *, value: float, good_steps: int) -> None:
        """Goes on with the scale of a checkpoint."""
        if self.enabled and value > 1.0:
            self.value = self.value_before = value
            self.good_steps = good_steps
