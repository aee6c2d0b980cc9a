"""What labels may look like: which ones can't be trained on, and what may be changed in the others.

Nothing is changed without being counted. PaddleOCR drops what it doesn't know from labels in silence, and its accuracy
is too high for that reason; here a label is either trained on as it stands in the report, or rejected with its place.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

    from ocr_finetune_api.spec import TextSpec

__all__ = ["Cleaner", "LabelProblem", "Limits", "frames_needed"]

_SPACES = re.compile(r"\s+")
# Invisible without being white space: joiners, directional marks, byte-order marks, soft hyphens, fillers.
_INVISIBLE = frozenset(
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u2060\u2061\u2062\u2063\u2064\u3164\ufeff\uffa0"
)

# What normal forms keep apart although no picture tells it apart; used by `fold` only, towards what the dictionary has.
_LOOK_ALIKES: tuple[str, ...] = (
    "-‐‑‒–—−﹣－", "'’‘ʼ＇′", '"“”„＂″', "·・•‧･", ".．。｡", ",，、", ":：", ";；", "!！", "?？", "(（", ")）", "~～〜",
    "×x✕", "/／∕", "…⋯",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a recognition model can be trained on.

    Attributes:
        columns: Columns of its widest input.
        stride: Columns that a frame of its output stands for.
    """

    columns: int
    stride: int

    @property
    def frames(self) -> int:
        """Frames of the widest input."""
        return self.columns // self.stride


@dataclass(frozen=True, slots=True)
class LabelProblem:
    """Why a label can't be used.

    Attributes:
        kind: In kebab case.
        what: In one clause.
        hint: What to do.
    """

    kind: str
    what: str
    hint: str


@lru_cache(maxsize=65536)
def _is_bad(character: str) -> bool:
    category = unicodedata.category(character)
    return category in ("Cc", "Cf", "Cs", "Cn") or character in _INVISIBLE


def frames_needed(entries: Iterable[object]) -> int:
    """Frames that CTC needs for a label: one an entry, and one more between equal neighbours."""
    count = 0
    before: object = None
    for entry in entries:
        count += 2 if entry == before else 1
        before = entry
    return count


class Cleaner:
    """Cleans labels as the manifest allows, and counts what it changed.

    Attributes:
        changed: How many labels each change has touched.
        examples: The first labels of each change, before and after.
    """

    def __init__(self, spec: TextSpec, *, known: Container[str] = ()) -> None:
        """Prepares the changes.

        Args:
            spec: What may be changed.
            known: The dictionary that `fold` folds towards.
        """
        self._spec = spec
        self._known = known
        self.changed: Counter[str] = Counter()
        self.examples: dict[str, list[tuple[str, str]]] = {}
        self._fold: dict[str, str] = {}

    def clean(self, text: str) -> str | LabelProblem:
        """The label to train with, or why there is none."""
        if self._spec.normalize in ("NFC", "NFKC"):
            text = self._change(self._spec.normalize, text, unicodedata.normalize(self._spec.normalize, text))
        elif self._spec.normalize == "fold":
            text = self._change("fold", text, self._folded(text))
        # White space that is no plain space (tabs, ideographic or no-break spaces) is one thing on a picture: a gap.
        if self._spec.collapse_spaces and not text.isalnum():
            text = self._change("spaces", text, self._collapse(text))
        if not text:
            return LabelProblem("empty-label", "the label is empty", "write what the picture says, or remove it")
        if text.isascii() and text.isprintable():
            return text
        bad = sorted({c for c in text if _is_bad(c)})
        if bad:
            shown = ", ".join(f"U+{ord(c):04X} ({unicodedata.name(c, 'control character').lower()})" for c in bad[:4])
            return LabelProblem("invisible-character", f"the label {text!r} holds {shown}, which no picture shows",
                                "remove it from the label")  # fmt: skip
        return text

    def _collapse(self, text: str) -> str:
        kept = "\u3000" in self._known if self._known else False
        if kept and "\u3000" in text:
            return " ".join(part for part in re.split(r"[^\S\u3000]+", text) if part)
        return _SPACES.sub(" ", text).strip(" ")

    def _folded(self, text: str) -> str:
        return "".join(self._fold_one(c) for c in unicodedata.normalize("NFC", text))

    def _fold_one(self, character: str) -> str:
        found = self._fold.get(character)
        if found is None:
            found = self._fold[character] = self._look_alike(character)
        return found

    def _look_alike(self, character: str) -> str:
        if character in self._known or character.isspace():
            return character
        plain = unicodedata.normalize("NFKC", character)
        if plain and all(c in self._known for c in plain):
            return plain
        for family in _LOOK_ALIKES:
            if character in family or plain in family:
                return next((c for c in family if c in self._known), character)
        return character

    def _change(self, what: str, before: str, after: str) -> str:
        if before != after:
            self.changed[what] += 1
            examples = self.examples.setdefault(what, [])
            if len(examples) < 10:
                examples.append((before, after))
        return after
