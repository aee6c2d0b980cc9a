"""Broken data sets, each made by code: what is done to a good one, and what has to be said about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

RECOGNITION = "MobileNetV3_small_ctc"
DETECTION = "DB_mv3"


@dataclass(frozen=True, kw_only=True)
class Case:
    """A broken data set.

    Attributes:
        name: What is broken.
        make: Writes it into a folder; may give the address to use instead of the folder.
        says: What must be said: for each problem, texts that one line has to hold.
        model: Which model it is for.
        code: The exit code with the default of `maxRejected`.
        tolerated: The exit code when everything unusable is allowed.
        source: Further fields of the source.
        spec: Further fields of the data set.
        dictionary: `model.dictionary`.
    """

    name: str
    make: Callable[[Path], Any]
    says: list[tuple[str, ...]]
    model: str = RECOGNITION
    code: int = 65
    tolerated: int = 0
    source: dict[str, Any] = field(default_factory=dict)
    spec: dict[str, Any] = field(default_factory=dict)
    model_spec: dict[str, Any] = field(default_factory=dict)


CASES: list[Case] = []


def case(*says: tuple[str, ...], **more: Any) -> Callable[[Callable[[Path], Any]], Callable[[Path], Any]]:
    def add(make: Callable[[Path], Any]) -> Callable[[Path], Any]:
        CASES.append(Case(name=make.__name__, make=make, says=list(says), **more))
        return make

    return add


def change_line(path: Path, number: int, text: str) -> None:
    rows = path.read_text(encoding="utf-8").split("\n")
    rows[number - 1] = text
    path.write_text("\n".join(rows), encoding="utf-8")


def append(path: Path, text: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(text)
