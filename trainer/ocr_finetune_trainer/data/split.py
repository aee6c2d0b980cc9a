"""Splits samples without leaks: what belongs together, or looks the same, lies on one side.

The side of a group depends on a hash of the group alone. So it is the same on every machine, and samples that are added
later move no old sample to the other side.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from ocr_finetune_trainer.data.components import Components

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["TEST", "TRAIN", "VALIDATION", "Fractions", "components", "fill_empty", "leaks", "split"]

TRAIN, VALIDATION, TEST = 0, 1, 2


@dataclass(frozen=True, kw_only=True)
class Fractions:
    """Parts to hold back; 0 holds back none."""

    validation: float = 0.0
    test: float = 0.0


def components(count: int, groups: NDArray[np.uint64], pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Puts samples together that share a group or look the same, over any number of steps.

    Args:
        count: N, how many samples there are.
        groups: uint64 (N,): hash of each sample's group; 0 for a sample that stands for itself.
        pairs: int64 (M, 2): samples that look the same.

    Returns:
        int64 (N,): the smallest number of each sample's component.
    """
    joined = Components(count)
    grouped = np.flatnonzero(groups)
    order = grouped[np.argsort(groups[grouped], kind="stable")]
    same = groups[order[1:]] == groups[order[:-1]]
    for first, second in chain(zip(order[:-1][same].tolist(), order[1:][same].tolist(), strict=True), pairs.tolist()):
        joined.join(first, second)
    return joined.roots()


def split(
    roots: NDArray[np.int64], keys: NDArray[np.uint64], given: NDArray[np.int8], fractions: Fractions
) -> NDArray[np.int8]:
    """Says on which side each sample lies.

    Args:
        roots: int64 (N,): component of each sample, as `components` gives it.
        keys: uint64 (N,): hash of each sample's group, or of its picture; a component goes by its smallest.
        given: int8 (N,): the side that the data set itself gives a sample, or -1. It stands; samples without one
            are split.
        fractions: The parts to hold back.

    Returns:
        int8 (N,): `TRAIN`, `VALIDATION` or `TEST`.
    """
    place = _places(roots, keys)
    sides = np.full(len(roots), TRAIN, dtype=np.int8)
    sides[place < fractions.test + fractions.validation] = VALIDATION
    sides[place < fractions.test] = TEST
    return np.where(given < 0, sides, given).astype(np.int8)


def _places(roots: NDArray[np.int64], keys: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Where each sample's component lies between 0 and 1."""
    smallest: NDArray[np.uint64] = np.full(len(roots), np.iinfo(np.uint64).max, dtype=np.uint64)
    np.minimum.at(smallest, roots, keys)
    return _mix(smallest[roots]).astype(np.float64) / 2.0**64


def fill_empty(
    sides: NDArray[np.int8],
    roots: NDArray[np.int64],
    keys: NDArray[np.uint64],
    open_: NDArray[np.bool_],
    fractions: Fractions,
) -> NDArray[np.int8]:
    """Gives a small data set at least one component on each side that is asked for, as far as there are any.

    Args:
        sides: int8 (N,): what `split` said.
        roots: As `split` takes them.
        keys: As `split` takes them.
        open_: bool (N,): samples that can be used, and that the data set itself gives no side.
        fractions: As `split` takes them.

    Returns:
        int8 (N,): the sides.
    """
    sides = sides.copy()
    place = _places(roots, keys)
    wanted = [side for side, part in ((TEST, fractions.test), (VALIDATION, fractions.validation)) if part > 0]
    for side in wanted:
        if np.any(sides[open_] == side):
            continue
        training = np.unique(roots[open_ & (sides == TRAIN)])
        if len(training) < 2:
            continue
        nearest = training[np.argmin(place[training])]
        sides[(roots == nearest) & open_] = side
    return sides


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Spreads hashes evenly (the finaliser of SplitMix64)."""
    with np.errstate(over="ignore"):
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: NDArray[np.uint64] = values ^ (values >> np.uint64(31))
    return mixed


def leaks(pairs: NDArray[np.int64], sides: NDArray[np.int8]) -> NDArray[np.int64]:
    """Those of the pairs whose samples lie on different sides: int64 (K, 2)."""
    if len(pairs) == 0:
        return pairs.reshape(0, 2)
    apart: NDArray[np.int64] = pairs[sides[pairs[:, 0]] != sides[pairs[:, 1]]]
    return apart
