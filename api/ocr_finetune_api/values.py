"""The small value types of the manifest: durations, percentages, intervals, and `auto`."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

AUTO: Literal["auto"] = "auto"

_DURATION = r"^([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?$"
_SECONDS = {"d": 86400, "h": 3600, "m": 60, "s": 1}

Duration = Annotated[str, Field(pattern=_DURATION, min_length=2, max_length=16, examples=["90s", "10m", "1h30m"])]
OptionalDuration = Annotated[str, Field(pattern=_DURATION, max_length=16, examples=["", "8h"])]
Percentage = Annotated[str, Field(pattern=r"^[0-9]{1,3}(\.[0-9]+)?%$", max_length=12, examples=["1%"])]
Interval = Annotated[
    str, Field(pattern=r"^(auto|[1-9][0-9]* (epochs?|steps?))$", max_length=24, examples=["1 epoch", "500 steps"])
]


def _number_or_auto(value: object) -> object:
    """YAML 1.1 reads `5e-5` as text; people mean the number."""
    if isinstance(value, str) and value != AUTO:
        try:
            return float(value)
        except ValueError:
            return value
    return value


AutoOrNumber = Annotated[Literal["auto"] | float, BeforeValidator(_number_or_auto)]
AutoOrInt = Annotated[Literal["auto"] | int, Field()]


def seconds(duration: str) -> int:
    """The length of a `Duration` in seconds; an empty one is 0.

    Raises:
        ValueError: It is not a duration.
    """
    if not re.match(_DURATION, duration):
        msg = f"{duration!r} is not a duration such as 90s, 10m or 1h30m"
        raise ValueError(msg)
    return sum(int(number) * _SECONDS[unit] for number, unit in re.findall(r"([0-9]+)([dhms])", duration))


def fraction(percentage: str) -> float:
    """The part of one that a `Percentage` stands for: 0.01 for `1%`."""
    return float(percentage.removesuffix("%")) / 100


def interval(text: str) -> tuple[int, Literal["epoch", "step"]]:
    """Takes an `Interval` other than `auto` apart: (500, "step") for `500 steps`."""
    count, unit = text.split()
    return int(count), "epoch" if unit.startswith("epoch") else "step"
