"""Tells how far a backward pass has come: it is where ranks wait for each other, each of them in its midst."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

__all__ = ["BackwardMarks"]

_MARKS = 8


class BackwardMarks:
    """A few parameters whose gradients are waited for, evenly spread over the model."""

    def __init__(self, parameters: Sequence[Any], *, tell: Callable[[float], None]) -> None:
        """Watches gradients from now on; tells nothing yet, see `told`.

        Args:
            parameters: Tensors in the order of the forward pass; their gradients come in the opposite one.
            tell: Told the part that is computed, over 0 to 1.
        """
        self._told = False
        backwards = list(reversed(parameters))
        every = max(len(backwards) // _MARKS, 1)
        for number in range(len(backwards) - 1, -1, -every):
            backwards[number].register_hook(self._hook((number + 1) / len(backwards), tell))

    @contextmanager
    def told(self) -> Iterator[None]:
        """Marks the backward pass in which ranks wait for each other."""
        self._told = True
        try:
            yield
        finally:
            self._told = False

    def _hook(self, part: float, tell: Callable[[float], None]) -> Callable[[Any], None]:
        def passed(_gradient: Any) -> None:
            if self._told:
                tell(part)

        return passed
