"""Finds pictures that are the same, or look the same, among any number of them.

Two perceptual hashes of 64 bits each propose pairs; a comparison of the pictures themselves, made small and grey,
decides. So
two different sevens of one writer stay two pictures, and one picture saved twice with another quality is one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING

import cv2
import numpy as np

from ocr_finetune_trainer.data.components import Components

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["candidates", "find", "looks_same"]

DISTANCE = 7  # bits of 128; the comparison of the pictures decides
_BANDS = 8  # any two hashes within DISTANCE share at least one of 8 bands of 16 bits
_CHUNK = 65536
_NEIGHBOURS = 16  # pictures of one band, sorted by hash, that each is compared with: blank ones would make it quadratic


def candidates(
    across: NDArray[np.uint64],
    down: NDArray[np.uint64],
    *,
    likely: Callable[[NDArray[np.int64]], NDArray[np.bool_]] | None = None,
) -> NDArray[np.int64]:
    """Pairs of pictures whose hashes are close.

    Args:
        across: uint64 (N,): first hash.
        down: uint64 (N,): second hash.
        likely: Says of pairs (K, 2) which to keep; asked band by band, so that those of many pictures fit into memory.

    Returns:
        int64 (M, 2): pairs, the smaller number first, each once, in order.
    """
    count = len(across)
    pairs: NDArray[np.int64] = np.zeros(0, dtype=np.int64)  # as first * count + second
    by_hash = np.lexsort((down, across))
    for band in range(_BANDS):
        values, shift = (across, band) if band < 4 else (down, band - 4)
        key = (values >> np.uint64(16 * shift)).astype(np.uint16)
        order = by_hash[np.argsort(key[by_hash], kind="stable")]
        found: list[NDArray[np.int64]] = []
        for step in range(1, min(_NEIGHBOURS, count - 1) + 1):
            left, right = order[:-step], order[step:]
            close = key[left] == key[right]
            if not close.any():
                break
            left, right = left[close], right[close]
            distance = np.bitwise_count(across[left] ^ across[right]) + np.bitwise_count(down[left] ^ down[right])
            near = distance <= DISTANCE
            left, right = left[near], right[near]
            found.append(np.minimum(left, right) * count + np.maximum(left, right))
        if not found:
            continue
        new = np.setdiff1d(np.concatenate(found), pairs)
        pairs = np.union1d(pairs, new if likely is None else new[likely(_apart(new, count))])
    return _apart(pairs, count)


def _apart(pairs: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    return np.stack(np.divmod(pairs, max(count, 1)), axis=1)


def looks_same(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> bool:
    """Whether two pictures show the same, whatever their size and compression.

    Args:
        first: uint8 (H, W, 3), BGR.
        second: As `first`.
    """
    return _same(_reduced(first), _reduced(second))


def _reduced(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture in grey, 64 rows at most: small enough to keep thousands of them."""
    grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    height, width = grey.shape
    if height > 64:
        grey = cv2.resize(grey, (max(1, round(64 * width / height)), 64), interpolation=cv2.INTER_AREA)
    return np.asarray(grey, dtype=np.uint8)


def _same(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> bool:
    ratio = (first.shape[1] / first.shape[0]) / (second.shape[1] / second.shape[0])
    if not 0.9 < ratio < 1.1:
        return False
    # One width for both: two ratios that are nearly equal may round to different ones.
    wide = int(np.clip(round(32 * first.shape[1] / first.shape[0]), 8, 256))
    a, b = (cv2.resize(p, (wide, 32), interpolation=cv2.INTER_AREA).astype(np.float32) for p in (first, second))
    spread = max(float(a.std()), float(b.std()))
    if spread < 4.0:
        return abs(float(a.mean()) - float(b.mean())) < 8.0
    return float(np.abs(a - b).mean()) < 0.06 * spread + 1.0


def find(
    across: NDArray[np.uint64],
    down: NDArray[np.uint64],
    digest: NDArray[np.uint64],
    *,
    cells: NDArray[np.uint8],
    ratios: NDArray[np.float64],
    picture: Callable[[int], NDArray[np.uint8]],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Finds exact and near duplicates.

    Args:
        across: uint64 (N,): first hash of each picture.
        down: uint64 (N,): second hash.
        digest: uint64 (N,): hash of each picture's bytes.
        cells: uint8 (N, 64): mean brightness of 8x8 parts of each picture.
        ratios: float64 (N,): width over height.
        picture: Gives a picture by number, for the comparison of those that are left then.

    Returns:
        Exact pairs and near pairs, int64 (M, 2) each. Of many equal pictures each is paired with the one before it, and
        only the first with pictures that look the same. Of many that look the same there are as many pairs as join them
        all: to compare each with each, such as thousands of blank ones, would take hours.
    """
    order = np.argsort(digest, kind="stable")
    same = digest[order[1:]] == digest[order[:-1]]
    exact = np.stack([order[:-1][same], order[1:][same]], axis=1).astype(np.int64)
    # One of many equal pictures speaks for all of them.
    first = np.sort(order[np.concatenate([[True], ~same])]) if len(order) else order
    proposed = first[candidates(across[first], down[first], likely=lambda pairs: _alike(first[pairs], cells, ratios))]
    reduced = lru_cache(maxsize=8192)(lambda index: _reduced(picture(index)))
    near = []
    joined = Components(len(digest))
    for one, other in proposed.tolist():
        if joined.root(one) != joined.root(other) and _same(reduced(one), reduced(other)):
            joined.join(one, other)
            near.append((one, other))
    return exact, np.asarray(near, dtype=np.int64).reshape(-1, 2)


def _alike(pairs: NDArray[np.int64], cells: NDArray[np.uint8], ratios: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which pairs may be the same by shape and coarse brightness; cheap, and not stricter than `looks_same`."""
    keep = np.zeros(len(pairs), dtype=bool)
    for start in range(0, len(pairs), _CHUNK):
        part = pairs[start : start + _CHUNK]
        ratio = ratios[part[:, 0]] / ratios[part[:, 1]]
        first, second = (cells[part[:, side]].astype(np.int16) for side in (0, 1))
        spread = np.maximum(first.std(axis=1), second.std(axis=1))
        difference = np.abs(first - second).mean(axis=1)
        keep[start : start + _CHUNK] = (ratio > 0.9) & (ratio < 1.1) & (difference < 0.2 * spread + 3.0)
    return keep
