"""Downloads a file so that a broken connection costs only what is missing."""

from __future__ import annotations

import errno
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests
from urllib3.exceptions import HTTPError, ProtocolError
from urllib3.exceptions import TimeoutError as ReadTimeout

from ocr_finetune_api.exit_codes import InputMissingError, OutputError, StorageError

Progress = Callable[[int, int], None]
"""Called with the bytes that are there and the bytes in all (0 if the server does not say)."""

_CHUNK = 1 << 18
_PASSING = (408, 425, 429, 500, 502, 503, 504)  # answers that may be another one a moment later


class _TryAgainError(Exception):
    pass


def download(
    url: str,
    target: Path,
    *,
    progress: Progress | None = None,
    attempts: int = 5,
    pause: float = 1.0,
    timeout: float = 30.0,
) -> None:
    """Downloads a file; what an earlier call left half done is gone on with.

    The bytes are gathered in `<target>.part`, and only a whole file gets the name `target`. The server is asked to go
    on only if it still has the same file (`If-Range`).

    Args:
        url: `http://` or `https://`.
        target: Where the file goes; its folder must exist.
        progress: Is told how far it is.
        attempts: Tries in a row that bring no byte before giving up; one that brings some starts the count anew.
        pause: Seconds before the second try; doubled each time.
        timeout: Seconds without a byte that end a try.

    Raises:
        InputMissingError: The server has no such file or can't be reached.
        StorageError: The disk is full or failing.
        OutputError: The folder can't be written.
    """
    part = target.with_name(target.name + ".part")
    failed = 0
    while True:
        before = _size(part)
        try:
            _fetch(url, part, progress=progress, timeout=timeout)
            break
        except (_TryAgainError, requests.RequestException, HTTPError) as error:
            failed = 1 if _size(part) > before else failed + 1
            if failed >= attempts:
                raise InputMissingError(
                    f"{url}: download failed {attempts} times in a row: {_reason(error)}",
                    hint="check the network and its proxy settings, or set OCRFT_MODEL_MIRROR or OCRFT_MODEL_HOME",
                ) from None
            time.sleep(pause * 2 ** (failed - 1))
        except OSError as error:
            raise _written(error, part) from error
    part.replace(target)
    _validator(part).unlink(missing_ok=True)


def _fetch(url: str, part: Path, *, progress: Progress | None, timeout: float) -> None:
    start = _size(part)
    # Without a validator a changed file on the server would be spliced with the old one, so only then go on.
    known = _read_validator(part) if start else ""
    headers = {"Accept-Encoding": "identity"}
    if known:
        headers |= {"Range": f"bytes={start}-", "If-Range": known}
    with requests.get(url, headers=headers, stream=True, timeout=timeout) as answer:
        if answer.status_code == 416:  # what is there is longer than the file
            part.unlink(missing_ok=True)
            raise _TryAgainError("the server's file has changed")
        if answer.status_code in _PASSING:
            raise _TryAgainError(f"the server answers {answer.status_code} {answer.reason}")
        if answer.status_code not in (200, 206):
            raise InputMissingError(f"{url}: the server answers {answer.status_code} {answer.reason}")
        if answer.status_code == 200:
            start = 0
        total = start + int(answer.headers.get("Content-Length", 0))
        _validator(part).write_text(
            json.dumps({"url": url, "validator": answer.headers.get("ETag", answer.headers.get("Last-Modified", ""))})
        )
        with part.open("ab" if start else "wb") as file:
            # not iter_content, which throws the bytes of a chunk away that the connection breaks in
            while chunk := answer.raw.read1(_CHUNK, decode_content=False):
                file.write(chunk)
                start += len(chunk)
                if progress is not None:
                    progress(start, total)
    if total and start != total:
        raise _TryAgainError(f"the connection ended after {start} of {total} bytes")


def _validator(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _read_validator(part: Path) -> str:
    try:
        document: Any = json.loads(_validator(part).read_text())
    except (OSError, ValueError):
        return ""
    # a weak validator promises too little to splice bytes
    validator = str(document.get("validator", ""))
    return "" if validator.startswith("W/") else validator


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _reason(error: Exception) -> str:
    if isinstance(error, requests.Timeout | ReadTimeout):
        return "the server does not answer"
    if isinstance(error, ProtocolError):
        return "the connection broke off"
    if isinstance(error, requests.ConnectionError):
        return "the server can't be reached"
    return str(error)


def _written(error: OSError, part: Path) -> StorageError | OutputError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
        return StorageError(f"{part}: {error.strerror}")
    return OutputError(f"{part}: can't be written: {error.strerror or error}")
