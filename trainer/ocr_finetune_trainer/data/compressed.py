"""Compressed tar archives: unpacked to a plain tar once, because a compressed one can't be read in the middle."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import lzma
import os
import shutil
import uuid
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ocr_finetune_api.exit_codes import DataError
from ocr_finetune_trainer.data.store import replace_file

__all__ = ["is_compressed", "unpack"]

# What such a file begins with, and what opens it.
_KINDS: dict[bytes, Callable[[Path, Any], Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
_TAR = slice(257, 262)


def is_compressed(path: Path) -> bool:
    """Whether a file is compressed by gzip, bzip2 or xz."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(6).startswith(tuple(_KINDS))


def unpack(path: Path, *, folder: Path) -> Path:
    """The plain tar of a compressed one; made once for each state of it.

    Args:
        path: A compressed tar archive.
        folder: Where plain ones lie; each in a folder of its own.

    Raises:
        DataError: It is cut off, damaged, or no tar archive inside.
    """
    status = path.stat()
    state = f"{path.resolve()}\0{status.st_size}\0{status.st_mtime_ns}"
    target = folder / hashlib.sha256(state.encode("utf-8", "surrogateescape")).hexdigest()[:24] / "content.tar"
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    try:
        _decompress(path, aside)
        replace_file(target.parent / "source.json", json.dumps({"uri": os.fspath(path)}).encode())
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)
    return target


def _decompress(path: Path, target: Path) -> None:
    with path.open("rb") as file:
        head = file.read(6)
    opens = next(opens for magic, opens in _KINDS.items() if head.startswith(magic))
    try:
        with opens(path, "rb") as source, target.open("wb") as sink:
            first = source.read(1 << 20)
            if first[_TAR] != b"ustar":
                raise DataError(
                    f"{path}: is compressed, and no tar archive inside", hint="unpack it, or make a .tar.gz"
                )
            sink.write(first)
            shutil.copyfileobj(source, sink, 1 << 20)
    except (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError) as error:
        raise DataError(
            f"{path}: is cut off or damaged ({error})", hint="copy it again from where it came from"
        ) from error
