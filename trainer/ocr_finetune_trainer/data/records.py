"""What a reader of a layout gives: labelled pictures as they were written down, and what was wrong with the rest.

A record is cheap: no picture has been opened for it. Whatever can't be used becomes a `Problem` with its place, so that
one pass over a data set finds everything that is wrong with it. Records travel to other processes by the million; as named
tuples they do so in half the time.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ocr_finetune_trainer.data.files import Member

__all__ = ["Box", "Problem", "Record", "summary"]

Point = tuple[float, float]


class Box(NamedTuple):
    """One text on a page.

    Attributes:
        points: At least three corners (x, y) in pixels, in reading order: top left first, clockwise.
        text: What it says.
        ignored: Whether it can't be read, so that finding it is neither right nor wrong.
    """

    points: tuple[Point, ...]
    text: str = ""
    ignored: bool = False


class Record(NamedTuple):
    """One labelled picture.

    Attributes:
        member: The picture, found in its source.
        place: Where the label stands, such as `train.txt:12`.
        text: The text of a line; empty for a page.
        boxes: The texts of a page; None for a line.
        group: What must stay on one side of a split, empty if the picture stands for itself.
        split: `train`, `validation` or `test` if the layout says it, else empty.
    """

    member: Member
    place: str
    text: str = ""
    boxes: tuple[Box, ...] | None = None
    group: str = ""
    split: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong with the data.

    Attributes:
        kind: What kind of problem, in kebab case, for counts.
        place: File and line, member or key.
        what: What is wrong, in one clause.
        hint: What to do; empty if the clause says it.
        source: Name of the source; filled in by `prepare`.
        fatal: Whether the source can't be used at all, whatever share of unusable samples is allowed.
        missing: Whether something that should be read does not exist.
        samples: How many samples it costs.
    """

    kind: str
    place: str
    what: str
    hint: str = ""
    source: str = ""
    fatal: bool = False
    missing: bool = False
    samples: int = 1

    def __str__(self) -> str:
        return f"{self.place}: {self.what}" + (f"; {self.hint}" if self.hint else "")

    def to_json(self) -> dict[str, Any]:
        """The problem as JSON values."""
        return asdict(self)


def summary(problems: Sequence[Problem], *, limit: int, where: str) -> list[str]:
    """The first problems as sentences, and how many more there are.

    Args:
        problems: All of them.
        limit: How many are shown at most.
        where: Where all of them are listed.
    """
    lines = [str(problem) for problem in problems[:limit]]
    if len(problems) > limit:
        lines.append(f"… and {len(problems) - limit} more, all of them in {where}")
    return lines
