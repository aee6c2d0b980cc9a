"""How polygons of two sets overlap, without looking at pairs that are apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import shapely

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def to_geometries(polygons: Sequence[ArrayLike]) -> NDArray[np.object_]:
    """Shapely polygons from arrays (K, 2); one with fewer than three points becomes an empty, invalid one."""
    arrays = [np.asarray(polygon, np.float64).reshape(-1, 2) for polygon in polygons]
    if not arrays:
        return np.empty(0, dtype=object)
    if {array.shape for array in arrays} == {(4, 2)}:
        return np.asarray(shapely.polygons(np.stack(arrays)), dtype=object)
    geometries = [shapely.Polygon(array) if len(array) > 2 else shapely.Polygon() for array in arrays]
    return np.asarray(geometries, dtype=object)


def usable(geometries: NDArray[np.object_]) -> NDArray[np.bool_]:
    """Which polygons have an inside: not self-crossing, not empty."""
    valid: NDArray[np.bool_] = shapely.is_valid(geometries) & ~shapely.is_empty(geometries)
    return valid


@dataclass(frozen=True, kw_only=True)
class Overlaps:
    """The pairs of a first and a second set that share area.

    Attributes:
        first: Indices into the first set, rising.
        second: Indices into the second set, rising for equal `first`.
        shared: Area of each pair's intersection.
        first_areas: Area of every polygon of the first set.
        second_areas: Area of every polygon of the second set.
    """

    first: NDArray[np.intp]
    second: NDArray[np.intp]
    shared: NDArray[np.float64]
    first_areas: NDArray[np.float64]
    second_areas: NDArray[np.float64]

    @property
    def iou(self) -> NDArray[np.float64]:
        """Intersection over union of each pair."""
        return self.shared / (self.first_areas[self.first] + self.second_areas[self.second] - self.shared)


def overlaps(first: NDArray[np.object_], second: NDArray[np.object_]) -> Overlaps:
    """Intersects two sets of valid polygons.

    Args:
        first: Shapely polygons (N,).
        second: Shapely polygons (M,).

    Returns:
        The pairs whose intersection has an area.
    """
    a, b = shapely.bounds(first).reshape(-1, 1, 4), shapely.bounds(second).reshape(1, -1, 4)
    near = ((a[..., :2] < b[..., 2:]) & (b[..., :2] < a[..., 2:])).all(axis=-1)
    rows, columns = np.nonzero(near)
    shared = shapely.area(shapely.intersection(first[rows], second[columns]))
    touching = shared > 0.0
    return Overlaps(
        first=rows[touching],
        second=columns[touching],
        shared=shared[touching],
        first_areas=shapely.area(first),
        second_areas=shapely.area(second),
    )
