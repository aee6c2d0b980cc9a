"""Which of many things belong together when pairs of them do."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Components"]


class Components:
    """The connected components of a graph that grows (Tarjan's disjoint sets, halving paths)."""

    def __init__(self, count: int) -> None:
        """Each of `count` things stands for itself."""
        self._parent = array("q", range(count))

    def root(self, index: int) -> int:
        """The smallest number of a thing's component."""
        parent = self._parent
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    def join(self, first: int, second: int) -> None:
        """Puts two things together, and all that belongs to either."""
        low, high = sorted((self.root(first), self.root(second)))
        self._parent[high] = low

    def roots(self) -> NDArray[np.int64]:
        """int64 (N,): the smallest number of each thing's component."""
        # Every parent is smaller than its child, so one pass in rising order suffices.
        roots = np.asarray(self._parent, dtype=np.int64)
        for index in np.flatnonzero(roots != np.arange(len(roots))):
            roots[index] = roots[roots[index]]
        return roots
