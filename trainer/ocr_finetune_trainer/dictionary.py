"""The dictionary: which characters a recogniser knows, and which class stands for which.

The classes are `[blank, dictionary…, space]`, the order that PaddleOCR trains with and `paddleocr` reads with. An entry
may be several code points (a letter and its combining marks, a flag), so labels are cut by longest match, never by code
point.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np

from ocr_finetune_api.exit_codes import DataError, InputMissingError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

SPACE = " "
_NRTR_SHIFT = 3  # padding 0, unknown 1, start 2, end 3 stand before the characters, the blank does not exist
_NRTR_START, _NRTR_END = 2, 3


@dataclass(frozen=True)
class Dictionary:
    """An ordered set of characters.

    Attributes:
        characters: The entries in the order of their classes, without the space that `use_space` adds.
        use_space: Whether the space is the last class.
    """

    characters: tuple[str, ...]
    use_space: bool = True

    @property
    def size(self) -> int:
        """How many characters there are with the space if used: what `models.build` calls `characters`."""
        return len(self.characters) + self.use_space

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The text of each CTC class; the blank's is empty."""
        return ("", *self.characters, *([SPACE] if self.use_space else []))

    @cached_property
    def _class_of(self) -> dict[str, int]:
        # should an entry stand twice, as in some published dictionaries, its first class is the one to train
        return {text: number for number, text in reversed(list(enumerate(self.classes))) if number}

    @cached_property
    def _longest(self) -> int:
        return max(map(len, self._class_of), default=1)

    def __contains__(self, character: object) -> bool:
        """Whether there is a class for this entry."""
        return character in self._class_of

    def split(self, text: str) -> list[str]:
        """Cuts a text into entries by longest match; a code point that no entry covers stands alone."""
        if self._longest == 1:
            return list(text)
        parts = []
        at = 0
        while at < len(text):
            length = next((n for n in range(self._longest, 1, -1) if text[at : at + n] in self._class_of), 1)
            parts.append(text[at : at + length])
            at += length
        return parts

    def encode(self, text: str) -> list[int]:
        """The CTC classes of a text.

        Raises:
            DataError: The text uses characters that have no class; all are named. Nothing is dropped in silence.
        """
        classes = [self._class_of.get(part, 0) for part in self.split(text)]
        if 0 in classes:
            raise DataError(f"the dictionary lacks {describe(self.missing(text))}, used in the text {text!r}")
        return classes

    def missing(self, text: str) -> list[str]:
        """The characters of a text that have no class, each once, in order of appearance."""
        return list(dict.fromkeys(part for part in self.split(text) if part not in self._class_of))

    def decode(self, probabilities: NDArray[np.float32]) -> list[tuple[str, float]]:
        """Reads texts from class probabilities as `paddleocr` does.

        Args:
            probabilities: (N, T, classes), after softmax.

        Returns:
            For each sample the text of its best path and the mean probability of the frames that gave its characters,
            0 for an empty text.
        """
        best = probabilities.argmax(axis=2)
        chosen = probabilities.max(axis=2)
        # a class counts where it begins, and the blank never
        begins = np.concatenate([np.ones_like(best[:, :1], dtype=bool), best[:, 1:] != best[:, :-1]], axis=1)
        kept = begins & (best != 0)
        texts = []
        for row, score, keep in zip(best, chosen, kept, strict=True):
            scores = score[keep]
            texts.append(("".join(self.classes[c] for c in row[keep]), float(scores.mean()) if scores.size else 0.0))
        return texts

    def save(self, path: Path) -> None:
        """Writes one entry a line; a last line of one space says that the space is a class."""
        path.write_text("".join(f"{text}\n" for text in self.classes[1:]), encoding="utf-8", newline="\n")

    @classmethod
    def load(cls, path: Path, *, use_space: bool | None = None) -> Dictionary:
        """Reads a file of one entry a line.

        Args:
            path: The file, UTF-8.
            use_space: Whether the space is a class; `None` asks the file: yes if its last line is a space.

        Raises:
            InputMissingError: There is no such file.
            DataError: The file is no dictionary; all its problems are listed.
        """
        try:
            content = path.read_bytes()
        except OSError as error:
            raise InputMissingError(f"{path}: the dictionary cannot be read: {error.strerror or error}") from error
        return cls.parse(content, source=str(path), use_space=use_space)

    @classmethod
    def parse(cls, content: bytes, *, source: str, use_space: bool | None = None) -> Dictionary:
        """As `load`, from a file's content; `source` names it in messages."""
        lines, problems = _lines(content, source)
        space_is_last = bool(lines) and lines[-1] == SPACE
        if space_is_last and use_space is not False:
            lines.pop()
        if not lines and not problems:
            problems.append(f"{source}: the dictionary is empty")
        problems += _entry_problems(lines, source, use_space=bool(use_space) or space_is_last)
        if problems:
            raise DataError(
                *problems, hint="a dictionary is a UTF-8 file with one character a line, each once, and no empty lines"
            )
        return cls(tuple(lines), use_space=space_is_last if use_space is None else use_space)


class Mode(StrEnum):
    """What happens to the dictionary of the pretrained weights."""

    AUTO = "auto"
    KEEP = "keep"
    EXTEND = "extend"
    REPLACE = "replace"


@dataclass(frozen=True)
class Merge:
    """The dictionary to train with, and how it came about.

    Attributes:
        dictionary: The result.
        mode: What was done; never `AUTO`.
        kept: Characters that the pretrained dictionary had and the result has.
        new: Characters that only the result has.
        dropped: Characters that only the pretrained dictionary had.
        missing: Characters that the data uses and the result lacks; only `KEEP`, or a file of one's own, can leave any.
    """

    dictionary: Dictionary
    mode: Mode
    kept: tuple[str, ...]
    new: tuple[str, ...]
    dropped: tuple[str, ...]
    missing: tuple[str, ...]


def merge(
    base: Dictionary | None,
    *,
    used: Iterable[str],
    wanted: Dictionary | None = None,
    mode: Mode = Mode.AUTO,
    use_space: bool | None = None,
) -> Merge:
    """Decides which dictionary a model is trained with.

    Args:
        base: The dictionary of the pretrained weights; `None` when training from scratch, which is `REPLACE`.
        used: The characters of all texts, as `Dictionary.split` of `base` (or of `wanted`) cuts them.
        wanted: A dictionary file of the user's own. It takes the place of `used` in what `EXTEND` adds and what
            `REPLACE` puts in place.
        mode: `KEEP` keeps `base`. `EXTEND` adds to its end what is not in it, in the order of code points. `REPLACE`
            takes nothing of it. `AUTO` keeps it if it lacks nothing, else extends it.
        use_space: Whether the space is a class; `None`: as in `base` or `wanted`, for a dictionary made from the data
            as the data uses it, and always if an extended one lacks it and the data uses it.

    Returns:
        The dictionary and what became of each character.
    """
    used_set = set(used)
    source = wanted.classes[1:] if wanted else tuple(sorted(used_set))
    if base is None:
        mode = Mode.REPLACE
    elif mode is Mode.AUTO:
        mode = Mode.KEEP if all(c in base for c in (*source, *used_set)) else Mode.EXTEND
    if base is None or mode is Mode.REPLACE:
        space = wanted.use_space if wanted else SPACE in source
        characters = wanted.characters if wanted else tuple(c for c in source if c != SPACE)
    else:
        space = base.use_space
        characters = base.characters
        if mode is Mode.EXTEND:
            space = space or SPACE in source
            characters += tuple(c for c in source if c not in base and c != SPACE)
    space = space if use_space is None else use_space
    result = Dictionary(characters, use_space=space and SPACE not in characters)
    before = base.classes[1:] if base else ()
    return Merge(
        dictionary=result,
        mode=mode,
        kept=tuple(c for c in before if c in result),
        new=tuple(c for c in result.classes[1:] if base is None or c not in base),
        dropped=tuple(c for c in before if c not in result),
        missing=tuple(sorted(c for c in used_set if c not in result)),
    )


def targets(
    encoded: Sequence[Sequence[int]], *, guide: Literal["", "nrtr", "sar"], size: int
) -> dict[str, NDArray[np.int64]]:
    """The targets of a batch under the names that models and losses read.

    Args:
        encoded: The classes of each text (`Dictionary.encode`).
        guide: The decoder of the guided branch; empty without one. NRTR counts a character as its CTC class + 3,
            between start (2) and end (3), padded with 0; SAR as its CTC class - 1, between `size + 1` and `size + 1`,
            padded with `size + 2`.
        size: `Dictionary.size`.

    Returns:
        `label_ctc` (N, L), `length` (N,), and with a guide `label_gtc` (N, L + 2), where L is the longest text's
        length: a wider array would only cost time.
    """
    length = np.array([len(classes) for classes in encoded], dtype=np.int64)
    longest = int(length.max(initial=1))
    batch = {"label_ctc": np.zeros((len(encoded), longest), dtype=np.int64), "length": length}
    start, end, padding, shift = (
        (_NRTR_START, _NRTR_END, 0, _NRTR_SHIFT) if guide == "nrtr" else (size + 1, size + 1, size + 2, -1)
    )
    guided = np.full((len(encoded), longest + 2), padding, dtype=np.int64)
    for row, classes in enumerate(encoded):
        count = len(classes)
        batch["label_ctc"][row, :count] = classes
        guided[row, : count + 2] = [start, *(c + shift for c in classes), end]
    return {**batch, "label_gtc": guided} if guide else batch


def describe(characters: Sequence[str], *, most: int = 20) -> str:
    """Names characters in a message: the first ones, with code points where they would be hard to see."""
    shown = ", ".join(_visible(c) for c in characters[:most])
    rest = len(characters) - most
    return f"{shown} and {rest} more" if rest > 0 else shown


def _visible(character: str) -> str:
    points = " ".join(f"U+{ord(c):04X}" for c in character)
    plain = len(character) == 1 and unicodedata.category(character)[0] in "LNPS"
    return repr(character) if plain else f"{character!r} ({points})"


def _lines(content: bytes, source: str) -> tuple[list[str], list[str]]:
    problems = []
    if content.startswith(b"\xef\xbb\xbf"):
        problems.append(f"{source}:1: the file begins with a byte-order mark; save it as UTF-8 without one")
        content = content[3:]
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        return [], [*problems, f"{source}:{line}: not UTF-8: {error.reason} at byte {error.start}"]
    # Only line feeds end a line: str.splitlines would cut at characters that a dictionary may hold.
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    if lines[-1] == "":
        lines.pop()
    return lines, problems


def _entry_problems(lines: Sequence[str], source: str, *, use_space: bool) -> list[str]:
    problems = []
    first: dict[str, int] = {}
    for number, entry in enumerate(lines, start=1):
        place = f"{source}:{number}"
        if not entry:
            problems.append(f"{place}: empty line")
            continue
        if entry in first:
            problems.append(f"{place}: {_visible(entry)} is in line {first[entry]} already")
        elif entry == SPACE and use_space:
            problems.append(f"{place}: the space is added as the last class by itself; remove this line")
        elif not _is_one_character(entry):
            problems.append(f"{place}: {entry!r} is more than one character")
        elif unicodedata.category(entry[0]) in ("Cc", "Cs"):
            problems.append(f"{place}: {_visible(entry)} is a control character, which no picture shows")
        first.setdefault(entry, number)
    return problems


def _is_one_character(entry: str) -> bool:
    # in several code points: a letter and its combining marks; a flag, of which the official dictionary has ten
    flag = len(entry) == 2 and all("\U0001f1e6" <= c <= "\U0001f1ff" for c in entry)
    return flag or len(entry) == 1 or all(unicodedata.category(c).startswith("M") for c in entry[1:])
