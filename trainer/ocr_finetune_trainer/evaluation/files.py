"""Writing results whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["write_bytes", "write_json", "write_jsonl", "write_text"]


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file aside and renames it, so that nobody ever sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text as `write_bytes` does."""
    write_bytes(path, text.encode("utf-8", "surrogatepass"))


def write_json(path: Path, document: Any) -> None:
    """Writes a JSON document."""
    write_text(path, json.dumps(document, ensure_ascii=False, indent=2, allow_nan=False) + "\n")


def write_jsonl(path: Path, documents: Iterable[Any]) -> None:
    """Writes one JSON document a line."""
    write_text(path, "".join(json.dumps(document, ensure_ascii=False) + "\n" for document in documents))
