"""Whether an outline goes around an area, or crosses itself as one does whose corners are in the wrong order."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ocr_finetune_trainer.data.records import Point

__all__ = ["crosses_itself", "goes_around"]


def crosses_itself(points: Sequence[Point]) -> bool:
    """Whether two edges of a closed outline cross each other; edges that only touch do not.

    Args:
        points: Its corners (x, y), in their order.
    """
    count = len(points)
    edges = [(points[i], points[(i + 1) % count]) for i in range(count)]
    return any(
        _cross(*edges[i], *edges[j])
        for i in range(count)
        for j in range(i + 2, count)
        if not (i == 0 and j == count - 1)  # neighbours share a corner
    )


def goes_around(points: Sequence[Point]) -> bool:
    """Whether an outline has four corners and bends the same way at each: it is convex, and does not cross itself.

    Args:
        points: Its corners (x, y), in their order.
    """
    if len(points) != 4:
        return False
    # Written out, because most boxes of any page are asked for it.
    (ax, ay), (bx, by), (cx, cy), (dx, dy) = points
    bends = (
        (bx - ax) * (cy - by) - (by - ay) * (cx - bx),
        (cx - bx) * (dy - cy) - (cy - by) * (dx - cx),
        (dx - cx) * (ay - dy) - (dy - cy) * (ax - dx),
        (ax - dx) * (by - ay) - (ay - dy) * (bx - ax),
    )
    return min(bends) > 0 or max(bends) < 0


def _cross(a: Point, b: Point, c: Point, d: Point) -> bool:
    return _side(a, b, c) * _side(a, b, d) < 0 and _side(c, d, a) * _side(c, d, b) < 0


def _side(start: Point, end: Point, point: Point) -> float:
    """On which side of a line a point lies: positive, negative, or 0 on it."""
    return (end[0] - start[0]) * (point[1] - start[1]) - (end[1] - start[1]) * (point[0] - start[0])
