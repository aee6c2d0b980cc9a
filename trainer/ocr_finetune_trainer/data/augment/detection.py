"""What augmentation does to a page and the outlines on it.

Flips, rotation, crop and zoom are all affine, so they are only *chosen* one after the other, as a `View` of the page,
and the page is drawn once at the end, at the size that training wants. The reference draws a whole page at each step,
up to three times its size.

Coordinates are continuous: pixel (0, 0) covers the square from 0 to 1. Every function draws from the generator it is
given, always the same number of values, so a sample can be made again from its seed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["View", "Window", "bounds", "choose_window", "draw", "flip", "paste", "rotate", "through"]

_PLACES = 50  # how many places are tried for a pasted text


@dataclass(frozen=True, kw_only=True)
class View:
    """A page as it will be seen: nothing is drawn yet.

    Attributes:
        matrix: float64 (3, 3), from coordinates of the page to those of the view.
        width: Columns of the view.
        height: Rows of the view.
    """

    matrix: NDArray[np.float64]
    width: float
    height: float

    @classmethod
    def of_page(cls, *, width: int, height: int) -> View:
        """The page as it is."""
        return cls(matrix=np.eye(3), width=width, height=height)

    def then(self, matrix: NDArray[np.float64], *, width: float, height: float) -> View:
        """Another map after this one."""
        return View(matrix=matrix @ self.matrix, width=width, height=height)

    def points(self, polygon: NDArray[np.floating]) -> NDArray[np.float32]:
        """Where points (K, 2) of the page are in the view."""
        return (polygon @ self.matrix[:2, :2].T + self.matrix[:2, 2]).astype(np.float32)

    def polygons(self, polygons: Sequence[NDArray[np.floating]]) -> list[NDArray[np.float32]]:
        """Where outlines of the page are in the view; many at once are faster than one after the other."""
        if not polygons:
            return []
        points = self.points(np.concatenate(polygons))
        ends = list(accumulate(map(len, polygons)))
        return [points[start:end] for start, end in pairwise([0, *ends])]


@dataclass(frozen=True, kw_only=True)
class Window:
    """A part of a view and how much it is magnified: left, top, width and height in the view, and the zoom."""

    left: float
    top: float
    width: float
    height: float
    zoom: float


def bounds(polygons: Sequence[NDArray[np.floating]]) -> NDArray[np.float64]:
    """The upright boxes around polygons: (N, 4) as left, top, right, bottom."""
    if not polygons:
        return np.zeros((0, 4))
    starts = [0, *accumulate(map(len, polygons[:-1]))]
    points = np.concatenate(polygons).astype(np.float64)
    return np.hstack([np.minimum.reduceat(points, starts), np.maximum.reduceat(points, starts)])


def _affine(rows: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    return np.array([*rows, (0.0, 0.0, 1.0)], dtype=np.float64)


def flip(view: View, rng: np.random.Generator, *, across: float, down: float) -> View:
    """Mirrors a view, left to right with probability `across` and top to bottom with probability `down`."""
    mirrored_x, mirrored_y = rng.random() < across, rng.random() < down
    x = (-1.0, 0.0, view.width) if mirrored_x else (1.0, 0.0, 0.0)
    y = (0.0, -1.0, view.height) if mirrored_y else (0.0, 1.0, 0.0)
    return view.then(_affine([x, y]), width=view.width, height=view.height)


def rotate(view: View, rng: np.random.Generator, *, degrees: float) -> View:
    """Turns a view by up to `degrees` either way; it grows so that no corner, and no text in one, is lost."""
    angle = math.radians(rng.uniform(-degrees, degrees))
    cosine, sine = math.cos(angle), math.sin(angle)
    width = abs(cosine) * view.width + abs(sine) * view.height
    height = abs(sine) * view.width + abs(cosine) * view.height
    shift_x = (width - cosine * view.width - sine * view.height) / 2.0
    shift_y = (height + sine * view.width - cosine * view.height) / 2.0
    return view.then(_affine([(cosine, sine, shift_x), (-sine, cosine, shift_y)]), width=width, height=height)


def choose_window(
    view: View,
    polygons: Sequence[NDArray[np.floating]],
    rng: np.random.Generator,
    *,
    canvas: tuple[int, int],
    zoom: tuple[float, float],
) -> Window:
    """Chooses the part of a view to train on, with at least one text in it and none of the texts cut.

    The idea is that of EAST's crop: an edge may lie only where no text is. Rows and columns are chosen one after the
    other, the second only among the texts that the first left, and the magnification is drawn, so that it is what it is
    said to be: a part is magnified less only where the texts need more room.

    Args:
        view: The view.
        polygons: Outlines in the view of all texts that must not be cut.
        rng: The generator.
        canvas: Rows and columns to fill.
        zoom: Least and largest magnification, drawn with an even spread of its logarithm.

    Returns:
        The window.
    """
    drawn = math.exp(rng.uniform(math.log(zoom[0]), math.log(zoom[1])))
    rows_first, at_x, at_y, chosen = rng.random() < 0.5, rng.random(), rng.random(), rng.random()
    limits = np.array([view.width, view.height])
    spans = np.clip(bounds(polygons).reshape(-1, 2, 2), 0.0, limits).transpose(0, 2, 1)  # text, axis, low and high
    spans = spans[(spans[:, :, 1] > spans[:, :, 0]).all(axis=1)]
    anchor = spans[int(chosen * len(spans))] if len(spans) else None

    edges = np.zeros((2, 2))
    for axis in (1, 0) if rows_first else (0, 1):
        edges[axis] = _choose_edges(
            spans[:, axis],
            None if anchor is None else anchor[axis],
            length=float(limits[axis]),
            wanted=canvas[1 - axis] / drawn,
            at=(at_x, at_y)[axis],
        )
        spans = spans[(spans[:, axis, 1] > edges[axis, 0]) & (spans[:, axis, 0] < edges[axis, 1])]
    width, height = (edges[:, 1] - edges[:, 0]).tolist()
    return Window(
        left=float(edges[0, 0]),
        top=float(edges[1, 0]),
        width=width,
        height=height,
        zoom=min(drawn, canvas[1] / width, canvas[0] / height),
    )


def _choose_edges(
    spans: NDArray[np.float64], anchor: NDArray[np.float64] | None, *, length: float, wanted: float, at: float
) -> tuple[float, float]:
    """Two edges on an axis, `wanted` apart if texts allow, around the anchor, at the place that `at` in [0, 1) says."""
    spare = max(0.0, length - wanted)
    if anchor is None:
        return at * spare, min(length, at * spare + wanted)
    gaps = _gaps(spans, length)
    first, last = float(anchor[0]), float(anchor[1])
    least = max(0.0, last - wanted)
    # Best fill the canvas; else any place that holds the anchor will do; else the nearest one before it.
    low = _pick(gaps, least, min(first, spare), at)
    if low is None:
        low = _pick(gaps, least, first, at)
    if low is None:
        low = max(min(end, first) for start, end in gaps if start <= first)
    highest = min(length, low + wanted)
    ends = [min(end, highest) for start, end in gaps if end >= last and start <= highest]
    high = max(ends) if ends else min(max(start, last) for start, end in gaps if end >= last)
    return low, max(high, last)


def _gaps(spans: NDArray[np.float64], length: float) -> list[tuple[float, float]]:
    """Where an edge may lie: between texts, and always at both ends."""
    gaps = [(0.0, 0.0)]
    reached = 0.0
    for low, high in sorted(spans.tolist()):
        if low > reached:
            gaps.append((reached, low))
        reached = max(reached, high)
    return [*gaps, (min(reached, length), length)]


def _pick(gaps: Sequence[tuple[float, float]], least: float, most: float, at: float) -> float | None:
    """The place a share `at` into what the gaps leave of [least, most]; None if that is nothing."""
    parts = [(max(start, least), min(end, most)) for start, end in gaps]
    parts = [(start, end) for start, end in parts if end >= start]
    if not parts:
        return None
    rest = at * sum(end - start for start, end in parts)
    for start, end in parts:
        if rest <= end - start:
            return start + rest
        rest -= end - start
    return parts[-1][1]


def through(view: View, window: Window, rng: np.random.Generator, *, canvas: tuple[int, int]) -> View:
    """The view through a window onto a canvas of rows and columns; where it leaves room it lies at a random place."""
    spare_x = max(0.0, canvas[1] - window.width * window.zoom)
    spare_y = max(0.0, canvas[0] - window.height * window.zoom)
    shift_x, shift_y = rng.random() * spare_x, rng.random() * spare_y
    matrix = _affine(
        [
            (window.zoom, 0.0, shift_x - window.zoom * window.left),
            (0.0, window.zoom, shift_y - window.zoom * window.top),
        ]
    )
    return view.then(matrix, width=canvas[1], height=canvas[0])


def _centred(matrix: NDArray[np.float64], *, reduced: int) -> NDArray[np.float64]:
    """The map between pixel centres, from a picture that was decoded at 1 / `reduced` of the page's size."""
    before = _affine([(reduced, 0.0, reduced / 2.0), (0.0, reduced, reduced / 2.0)])
    after = _affine([(1.0, 0.0, -0.5), (0.0, 1.0, -0.5)])
    return (after @ matrix @ before)[:2]


def draw(picture: NDArray[np.uint8], view: View, *, reduced: int = 1) -> NDArray[np.uint8]:
    """Draws a view; what lies beyond the page is black.

    Args:
        picture: uint8 (H, W, 3), the page, or the page at a fraction of its size.
        view: The view, from coordinates of the page itself.
        reduced: The page's size divided by the picture's.

    Returns:
        uint8 (view.height, view.width, 3).
    """
    rows, columns = round(view.height), round(view.width)
    matrix = _centred(view.matrix, reduced=reduced)
    height, width = picture.shape[:2]
    corners = np.array([(0, 0), (width, 0), (0, height), (width, height)]) @ matrix[:, :2].T + matrix[:, 2]
    # A pixel more on each side: the page's edge fades over one.
    left, top = np.clip(np.floor(corners.min(axis=0)) - 1, 0, (columns, rows)).astype(int).tolist()
    right, bottom = np.clip(np.ceil(corners.max(axis=0)) + 2, 0, (columns, rows)).astype(int).tolist()
    if (left, top, right, bottom) == (0, 0, columns, rows):
        return np.asarray(cv2.warpAffine(picture, matrix, (columns, rows), flags=cv2.INTER_LINEAR), dtype=np.uint8)
    canvas = np.zeros((rows, columns, 3), np.uint8)
    if right > left and bottom > top:
        matrix[:, 2] -= left, top
        size = (right - left, bottom - top)
        canvas[top:bottom, left:right] = cv2.warpAffine(picture, matrix, size, flags=cv2.INTER_LINEAR)
    return canvas


def paste(
    canvas: NDArray[np.uint8],
    polygons: Sequence[NDArray[np.float32]],
    texts: Sequence[NDArray[np.float32]],
    rng: np.random.Generator,
    *,
    picture: NDArray[np.uint8],
    zoom: float,
    degrees: float,
    most: int,
    reduced: int = 1,
) -> list[NDArray[np.float32]]:
    """Copies texts of a page to free places of a canvas, turned at random.

    Args:
        canvas: uint8 (H, W, 3), changed in place.
        polygons: Outlines on the canvas of what must stay free.
        texts: Outlines on the page of what may be copied.
        rng: The generator.
        picture: uint8, the page, or the page at a fraction of its size.
        zoom: Magnification from the page to the canvas.
        degrees: Texts are turned by up to this, either way.
        most: At most this many are copied.
        reduced: The page's size divided by the picture's.

    Returns:
        Outlines on the canvas of the copies; a text for which no free place was found is left out.
    """
    rows, columns = canvas.shape[:2]
    taken = bounds(polygons)
    copies: list[NDArray[np.float32]] = []
    for index in rng.permutation(len(texts))[:most]:
        outline = texts[index].astype(np.float64)
        angle, places = math.radians(rng.uniform(-degrees, degrees)), rng.random((_PLACES, 2))
        cosine, sine = zoom * math.cos(angle), zoom * math.sin(angle)
        turned: NDArray[np.float64] = outline @ np.array([(cosine, -sine), (sine, cosine)])
        low, size = turned.min(axis=0), np.ptp(turned, axis=0)
        room = np.array([columns, rows]) - size
        corner = _free_place(places * room, size, taken) if room.min() > 0 else None
        if corner is None:
            continue
        move = corner - low
        view = View(matrix=_affine([(cosine, sine, move[0]), (-sine, cosine, move[1])]), width=columns, height=rows)
        copy = view.points(outline)
        _copy_through(canvas, copy, view, picture=picture, reduced=reduced)
        taken = np.vstack([taken, np.concatenate([corner, corner + size])])
        copies.append(copy)
    return copies


def _free_place(
    corners: NDArray[np.float64], size: NDArray[np.float64], taken: NDArray[np.float64]
) -> NDArray[np.float64] | None:
    """The first of the corners (K, 2) at which something of this size touches none of the boxes (N, 4)."""
    x, y = corners[:, :1], corners[:, 1:]
    left, top, right, bottom = taken.T
    touching = (x <= right) & (x >= left - size[0]) & (y <= bottom) & (y >= top - size[1])
    free = np.flatnonzero(~touching.any(axis=1))
    return np.asarray(corners[free[0]]) if len(free) else None


def _copy_through(
    canvas: NDArray[np.uint8], outline: NDArray[np.float32], view: View, *, picture: NDArray[np.uint8], reduced: int
) -> None:
    rows, columns = canvas.shape[:2]
    left, top = np.maximum(np.floor(outline.min(axis=0)).astype(int), 0).tolist()
    right, bottom = np.minimum(np.ceil(outline.max(axis=0)).astype(int), (columns, rows)).tolist()
    if right <= left or bottom <= top:
        return
    shifted = view.then(_affine([(1.0, 0.0, -left), (0.0, 1.0, -top)]), width=right - left, height=bottom - top)
    mask = np.zeros((bottom - top, right - left), np.uint8)
    cv2.fillPoly(mask, [np.round(outline - (left, top)).astype(np.int32)], 1)
    patch = draw(picture, shifted, reduced=reduced)
    cv2.copyTo(patch, mask, canvas[top:bottom, left:right])
