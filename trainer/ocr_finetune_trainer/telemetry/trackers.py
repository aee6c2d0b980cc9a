"""Where the scalars and events of a training go beside Prometheus: one small interface, one class a destination."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

__all__ = ["EventLog", "Tracker"]

logger = logging.getLogger(__name__)


class Tracker(Protocol):
    """Takes what a training reports. It must be quick, and must never end a training."""

    def scalars(self, values: Mapping[str, float], *, step: int) -> None:
        """Numbers at a step, named `train/…` and `validation/…`."""

    def event(self, name: str, fields: Mapping[str, Any]) -> None:
        """Something happened."""

    def close(self) -> None:
        """Nothing more comes."""


class EventLog:
    """`events.jsonl`: what happened, one JSON object a line, in the order in which it happened."""

    def __init__(self, path: Path, **constant: Any) -> None:
        """Opens nothing yet.

        Args:
            path: The file; it is appended to.
            constant: Fields of every line, such as the attempt.
        """
        self._path = path
        self._constant = constant
        self._failed = False

    def scalars(self, values: Mapping[str, float], *, step: int) -> None:
        """Numbers are no events."""

    def event(self, name: str, fields: Mapping[str, Any]) -> None:
        """Appends a line."""
        line = json.dumps({"time": round(time.time(), 3), "event": name, **self._constant, **fields}, default=str)
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            if not self._failed:
                logger.warning("%s: %s; events are not recorded", self._path, error.strerror)
            self._failed = True

    def close(self) -> None:
        """Every line is written already."""
