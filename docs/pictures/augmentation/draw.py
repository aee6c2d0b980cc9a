# ruff: noqa: INP001
"""Draws the pictures of docs/reference/augmentation.md: each operation on one line of text, and on one page.

python docs/pictures/augmentation/draw.py
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from ocr_finetune_trainer.data.augment import detection, recognition
from ocr_finetune_trainer.data.augment.detection import View
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


def line_operations() -> dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]]:
    """Every operation on lines by its name."""
    bends = {name: bend(name) for name in ("distort", "stretch", "perspective")}
    joined = {"concatenate": lambda picture, _: recognition.concatenate(picture[:, :130], picture[:, 130:])}
    return {**bends, **OPERATIONS, **joined}


def page() -> tuple[np.ndarray, list[np.ndarray]]:
    """A page with four texts, uint8 (150, 200, 3), and their outlines."""
    paper = np.random.default_rng(1).integers(200, 245, (4, 5, 3), dtype=np.uint8)
    picture = cv2.resize(paper, (200, 150), interpolation=cv2.INTER_CUBIC)
    outlines = []
    for word, x, y in (("Reading", 16, 40), ("pages", 120, 44), ("2026", 20, 92), ("finetune", 76, 130)):
        (width, height), _ = cv2.getTextSize(word, cv2.FONT_HERSHEY_SIMPLEX, 0.6, 1)
        cv2.putText(picture, word, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (40, 30, 30), 1, cv2.LINE_AA)
        left, top, right, bottom = x - 3, y - height - 4, x + width + 3, y + 6
        outlines.append(np.array([(left, top), (right, top), (right, bottom), (left, bottom)], np.float32))
    return picture, outlines


def seen(view: View) -> np.ndarray:
    """A view of the page with its outlines, on a canvas of the page's size."""
    picture, outlines = page()
    return outlined(detection.draw(picture, view), view.polygons(outlines))


def outlined(
    picture: np.ndarray, outlines: list[np.ndarray], colour: tuple[int, int, int] = (60, 140, 0)
) -> np.ndarray:
    """A picture with outlines, as large as the page."""
    for outline in outlines:
        cv2.polylines(picture, [np.round(outline).astype(np.int32)], isClosed=True, color=colour, lineType=cv2.LINE_AA)
    size = page()[0].shape[1::-1]
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


def whole() -> View:
    """The page as it is."""
    return View.of_page(width=200, height=150)


def window(rng: np.random.Generator, zoom: tuple[float, float]) -> np.ndarray:
    """A part of the page that cuts no text, magnified."""
    canvas = (150, 200)
    chosen = detection.choose_window(whole(), page()[1], rng, canvas=canvas, zoom=zoom)
    return seen(detection.through(whole(), chosen, rng, canvas=canvas))


def copied(rng: np.random.Generator) -> np.ndarray:
    """The page with copies of its texts on free places; their outlines are orange."""
    picture, outlines = page()
    changed = picture.copy()
    copies = detection.paste(changed, outlines, outlines, rng, picture=picture, zoom=1.0, degrees=180.0, most=2)
    return outlined(outlined(changed, outlines), copies, (0, 120, 240))


def page_operations() -> dict[str, Callable[[np.random.Generator], np.ndarray]]:
    """Every operation on pages by its name."""
    return {
        "page-flip": lambda rng: seen(detection.flip(whole(), rng, across=0.7, down=0.3)),
        "page-rotate": lambda rng: seen(detection.rotate(whole(), rng, degrees=10.0)),
        "page-scale": lambda rng: window(rng, (0.5, 1.0)),
        "page-crop": lambda rng: window(rng, (1.6, 2.4)),
        "page-paste": copied,
    }


def operations() -> list[str]:
    """The names of all operations."""
    return [*line_operations(), *page_operations()]


def draw(name: str) -> np.ndarray:
    """The line or page as it is, and after the operation with three sets of random numbers."""
    on_pages = page_operations().get(name)
    first = seen(whole()) if on_pages else line()
    gap = np.full((first.shape[0], 6, 3), 255, dtype=np.uint8)
    row = [first]
    for index in range(TIMES):
        rng = generator(0, 0, index)
        row += [gap, on_pages(rng) if on_pages else line_operations()[name](first, rng)]
    return np.concatenate(row, axis=1)


def main() -> None:
    """Writes a picture for each operation."""
    for name in operations():
        cv2.imwrite(str(HERE / f"{name}.jpg"), draw(name), [cv2.IMWRITE_JPEG_QUALITY, 88])


if __name__ == "__main__":
    main()
