# ruff: noqa: INP001
"""Draws the pictures of docs/reference/augmentation.md: each operation on one line of text, and on one page.

python docs/pictures/augmentation/draw.py
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from ocr_finetune_trainer.data.augment import recognition
from ocr_finetune_trainer.data.augment.recognition import OPERATIONS, Warp
from ocr_finetune_trainer.data.order import generator

HERE = Path(__file__).parent
TIMES = 3


def line() -> np.ndarray:
    """A line of text on shaded paper: uint8 (48, 260, 3)."""
    paper = np.random.default_rng(0).integers(200, 245, (2, 5, 3), dtype=np.uint8)
    picture = cv2.resize(paper, (260, 48), interpolation=cv2.INTER_CUBIC)
    cv2.putText(picture, "Reading 0123", (8, 34), cv2.FONT_HERSHEY_SIMPLEX, 1.0, (40, 30, 30), 2, cv2.LINE_AA)
    return picture


def bend(name: str) -> Callable[[np.ndarray, np.random.Generator], np.ndarray]:
    """One of the three ways to bend a line, alone."""

    def operation(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        height, width = picture.shape[:2]
        shifts = Warp.none(6)
        if name == "distort":
            recognition.distort(shifts, rng, height=height, width=width)
        elif name == "stretch":
            recognition.stretch(shifts, rng, width=width)
        else:
            recognition.perspective(shifts, rng, height=height)
        return recognition.warp(picture, shifts)

    return operation


def operations() -> dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]]:
    """Every operation by its name."""
    bends = {name: bend(name) for name in ("distort", "stretch", "perspective")}
    joined = {"concatenate": lambda picture, _: recognition.concatenate(picture[:, :130], picture[:, 130:])}
    return {**bends, **OPERATIONS, **joined}


def draw(name: str) -> np.ndarray:
    """The line as it is, and after the operation with three sets of random numbers."""
    picture = line()
    gap = np.full((picture.shape[0], 6, 3), 255, dtype=np.uint8)
    row = [picture]
    for index in range(TIMES):
        row += [gap, operations()[name](picture, generator(0, 0, index))]
    return np.concatenate(row, axis=1)


def main() -> None:
    """Writes a picture for each operation."""
    for name in operations():
        cv2.imwrite(str(HERE / f"{name}.jpg"), draw(name), [cv2.IMWRITE_JPEG_QUALITY, 88])


if __name__ == "__main__":
    main()
