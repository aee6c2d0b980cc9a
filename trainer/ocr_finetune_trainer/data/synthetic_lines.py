"""Lines of text drawn from the user's own corpus, fonts and backgrounds, for characters that the real data has too
few of.

Pillow draws; what is drawn becomes an ordinary source, so that it is checked, stored and reported like any other. The
same
inputs give the same lines.
"""

from __future__ import annotations

import hashlib
import shutil
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ocr_finetune_api.exit_codes import DataError, InputMissingError
from ocr_finetune_trainer.data.files import decode_text
from ocr_finetune_trainer.data.order import generator
from ocr_finetune_trainer.data.pictures import PictureError, decode, encode, inspect

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["NAME", "Recipe", "draw"]

NAME = "synthetic"
_TOLD_EVERY = 100  # lines
_VERSION = 1  # of what a recipe draws; raise it when that changes
_FONT_SUFFIXES = frozenset({".ttf", ".otf", ".ttc", ".otc"})
_HEIGHTS = (32, 64)  # of the letters, in pixels
_LONGEST = 40
_LEAST_CONTRAST = 70


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What lines are drawn from.

    Attributes:
        corpus: A text file, one line of text a line.
        fonts: A font or a folder of fonts.
        backgrounds: A folder of pictures; None draws on plain paper.
        count: How many lines.
        seed: Decides everything random.
    """

    corpus: Path
    fonts: Path
    backgrounds: Path | None
    count: int
    seed: int = 0


def draw(recipe: Recipe, *, cache: Path, progress: Callable[[int, int], None] = lambda _done, _total: None) -> Path:
    """Draws the lines of a recipe, or finds them drawn.

    Args:
        recipe: What to draw.
        cache: The workspace's cache.
        progress: Told how many lines are drawn, and how many there will be.

    Returns:
        A folder in PaddleOCR's layout: `lines/` and `list.txt`.

    Raises:
        InputMissingError: There is no corpus, font or background.
        DataError: The corpus is empty, or no font has the characters of a line.
    """
    texts = _texts(recipe.corpus)
    fonts = _files(recipe.fonts, _FONT_SUFFIXES, what="font")
    backgrounds = _files(recipe.backgrounds, None, what="background") if recipe.backgrounds else []
    key = hashlib.sha256(f"{_VERSION}\0{recipe.count}\0{recipe.seed}\0".encode())
    key.update("\n".join(texts).encode())
    for path in (*fonts, *backgrounds):
        key.update(hashlib.sha256(path.read_bytes()).digest())
    target = cache / NAME / key.hexdigest()[:24]
    if (target / "list.txt").is_file():
        return target
    aside = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    try:
        (aside / "lines").mkdir(parents=True)
        _draw_all(recipe, texts, [_Font(path) for path in fonts], backgrounds, folder=aside, progress=progress)
        shutil.rmtree(target, ignore_errors=True)
        aside.rename(target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return target


def _draw_all(
    recipe: Recipe,
    texts: Sequence[str],
    fonts: Sequence[_Font],
    backgrounds: Sequence[Path],
    *,
    folder: Path,
    progress: Callable[[int, int], None],
) -> None:
    paper = [_background(path) for path in backgrounds[:500]]
    rows = []
    missing: set[str] = set()
    for number in range(recipe.count):
        if number % _TOLD_EVERY == 0:
            progress(number, recipe.count)
        rng = generator(recipe.seed, 0, number)
        text = _piece(texts[int(rng.integers(len(texts)))], rng)
        able = [font for font in fonts if font.has_all(text)]
        if not able:
            missing.update(c for c in text if not any(font.has(c) for font in fonts))
            continue
        picture = _line(text, able[int(rng.integers(len(able)))], paper, rng)
        (folder / "lines" / f"{number}.jpg").write_bytes(encode(picture, lossless=False))
        rows.append(f"lines/{number}.jpg\t{text}\n")
    if not rows:
        shown = " ".join(sorted(missing)[:30])
        raise DataError(f"{recipe.fonts}: no font has all characters of a line; missing are {shown}",
                        hint="add fonts that have them")  # fmt: skip
    (folder / "list.txt").write_text("".join(rows), encoding="utf-8")


def _texts(path: Path) -> list[str]:
    try:
        lines = decode_text(path.read_bytes()).splitlines()
    except OSError as error:
        raise InputMissingError(f"dataset.synthetic.corpus: {path}: can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"dataset.synthetic.corpus: {path}: is no text ({error})", hint="save it as UTF-8") from error
    texts = [" ".join(line.split()) for line in lines if line.strip()]
    if not texts:
        raise DataError(f"dataset.synthetic.corpus: {path}: is empty", hint="write one line of text a line")
    return texts


def _files(path: Path, suffixes: frozenset[str] | None, *, what: str) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InputMissingError(f"dataset.synthetic: {path}: there is no such {what}")
    found = sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
    found = [file for file in found if suffixes is None or file.suffix.lower() in suffixes]
    if not found:
        raise InputMissingError(f"dataset.synthetic: {path}: holds no {what}")
    return found


class _Font:
    """A font in the sizes that are drawn, and which characters it has."""

    def __init__(self, path: Path) -> None:
        try:
            self._sizes = {size: ImageFont.truetype(str(path), size) for size in range(*_HEIGHTS, 8)}
        except OSError as error:
            raise DataError(f"{path}: is no font that can be read ({error})", hint="remove it") from error
        first = self._sizes[_HEIGHTS[0]]
        # Every font draws one picture for all that it lacks.
        self._nothing = {bytes(first.getmask(character)) for character in ("\uffff", "\U0010fffe")}
        self._known: dict[str, bool] = {" ": True}

    def has(self, character: str) -> bool:
        """Whether it can draw a character."""
        if character not in self._known:
            mask = self._sizes[_HEIGHTS[0]].getmask(character)
            self._known[character] = mask.getbbox() is not None and bytes(mask) not in self._nothing
        return self._known[character]

    def has_all(self, text: str) -> bool:
        """Whether it can draw a text."""
        return all(self.has(character) for character in text)

    def size(self, rng: np.random.Generator) -> ImageFont.FreeTypeFont:
        """One of its sizes."""
        sizes = sorted(self._sizes)
        return self._sizes[sizes[int(rng.integers(len(sizes)))]]


def _piece(text: str, rng: np.random.Generator) -> str:
    """A part of a long line, cut between words where there are any."""
    if len(text) <= _LONGEST:
        return text
    start = int(rng.integers(len(text) - _LONGEST))
    part = text[start : start + _LONGEST]
    if start and " " in part[:-1]:
        part = part[part.index(" ") + 1 :]
    if " " in part.strip():
        part = part[: part.rindex(" ")] if len(part) + start < len(text) else part
    return part.strip() or text[:_LONGEST].strip()


def _background(path: Path) -> NDArray[np.uint8]:
    try:
        return decode(inspect(path.read_bytes()).content)
    except PictureError as error:
        raise DataError(f"{path}: {error}", hint="replace or remove this background") from error


def _line(text: str, font: _Font, paper: Sequence[NDArray[np.uint8]], rng: np.random.Generator) -> NDArray[np.uint8]:
    drawn = font.size(rng)
    left, top, right, bottom = drawn.getbbox(text)
    margins = rng.integers(2, 10, size=4)
    width, height = int(right - left + margins[0] + margins[1]), int(bottom - top + margins[2] + margins[3])
    ground = _ground(paper, height, width, rng)
    image = Image.fromarray(ground[:, :, ::-1])
    colour = _ink(ground, rng)
    ImageDraw.Draw(image).text((int(margins[0] - left), int(margins[2] - top)), text, font=drawn, fill=colour)
    return np.ascontiguousarray(np.asarray(image)[:, :, ::-1])


def _ground(paper: Sequence[NDArray[np.uint8]], height: int, width: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    if not paper:
        plain = np.full((height, width, 3), rng.integers(170, 256, size=3), dtype=np.uint8)
        shade = cv2.resize(rng.integers(-12, 12, (2, 4, 1)).astype(np.float32), (width, height))[:, :, None]
        return np.asarray(np.clip(plain + shade, 0, 255), dtype=np.uint8)
    page = paper[int(rng.integers(len(paper)))]
    scale = max(height / page.shape[0], width / page.shape[1], 1.0)
    if scale > 1.0:
        page = np.asarray(cv2.resize(page, None, fx=scale * 1.01, fy=scale * 1.01), dtype=np.uint8)
    y = int(rng.integers(page.shape[0] - height + 1))
    x = int(rng.integers(page.shape[1] - width + 1))
    part: NDArray[np.uint8] = page[y : y + height, x : x + width].copy()
    return part


def _ink(ground: NDArray[np.uint8], rng: np.random.Generator) -> tuple[int, int, int]:
    """A colour that can be told from the paper."""
    light = float(ground.mean())
    for _ in range(20):
        colour = rng.integers(0, 256, size=3)
        if abs(float(colour.mean()) - light) >= _LEAST_CONTRAST:
            return int(colour[0]), int(colour[1]), int(colour[2])
    return (0, 0, 0) if light > 127 else (255, 255, 255)
