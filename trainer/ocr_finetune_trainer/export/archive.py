"""One file that holds an export, with checksums, and its way to where it is wanted: whole or not at all."""

from __future__ import annotations

import functools
import gzip
import hashlib
import logging
import tarfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ocr_finetune_api.exit_codes import ConfigurationError, OCRFineTuneError, OutputError, StorageError
from ocr_finetune_trainer.data.sources import open_store

__all__ = ["CHECKSUMS", "checksums", "pack", "push", "with_retries"]

CHECKSUMS = "SHA256SUMS"
ATTEMPTS = 5
_FIRST_WAIT_SECONDS = 1.0
_OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "oss", "abfs", "az"})

logger = logging.getLogger(__name__)


def checksums(folder: Path) -> str:
    """Lines as `sha256sum` writes them, for all files of a folder but the list itself."""
    lines = []
    for path in sorted(file for file in folder.rglob("*") if file.is_file()):
        name = path.relative_to(folder).as_posix()
        if name != CHECKSUMS:
            with path.open("rb") as file:
                lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {name}\n")
    return "".join(lines)


def pack(folder: Path, path: Path, *, name: str) -> Path:
    """Packs a folder into a .tar.gz; the same content gives the same bytes.

    Args:
        folder: What to pack; `SHA256SUMS` is written into it.
        path: The archive to write, outside the folder.
        name: The folder's name inside the archive.

    Returns:
        The file with the archive's own checksum, beside it.
    """
    (folder / CHECKSUMS).write_text(checksums(folder), encoding="utf-8")
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with (
            aside.open("wb") as raw,
            gzip.GzipFile("", "wb", fileobj=raw, mtime=0, compresslevel=6) as zipped,
            tarfile.open(mode="w", fileobj=zipped, format=tarfile.PAX_FORMAT) as archive,
        ):
            for file in sorted(item for item in folder.rglob("*") if item.is_file()):
                _add(archive, file, name=f"{name}/{file.relative_to(folder).as_posix()}")
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    with path.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    sums = path.with_name(path.name + ".sha256")
    sums.write_text(f"{digest}  {path.name}\n", encoding="utf-8")
    return sums


def _add(archive: tarfile.TarFile, file: Path, *, name: str) -> None:
    info = tarfile.TarInfo(name)
    info.size = file.stat().st_size
    info.mode = 0o644
    with file.open("rb") as content:
        archive.addfile(info, content)


def push(
    files: list[Path],
    destination: str,
    *,
    options: dict[str, Any] | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> list[str]:
    """Copies files to a folder of any file system that fsspec knows.

    Each is written under a hidden name and moved when it is whole; object stores show an object only when it is whole
    by themselves. The last file is the one that says the rest is there: give the checksum last.

    Args:
        files: What to copy, in this order.
        destination: A path or an address such as `s3://models/plates`.
        options: Options of the file system: keys, endpoint.
        sleep: Waits between attempts.

    Returns:
        The addresses of the copies.

    Raises:
        ConfigurationError: There is no such file system, or its package is not installed.
        OutputError: The destination can't be written.
        StorageError: It failed again and again.
    """
    try:
        system, root = open_store(destination, options or {})
    except (ImportError, ValueError) as error:
        raise ConfigurationError(
            f"export.destination: {destination}: {error}",
            hint="write a path, file://, s3://, gs:// or oss://, and install the package that the message names",
        ) from error
    addresses = []
    for file in files:
        target = f"{root.rstrip('/')}/{file.name}"
        with_retries(functools.partial(_copy, system, file, target), destination, sleep=sleep)
        addresses.append(f"{destination.rstrip('/')}/{file.name}" if urlsplit(destination).scheme else target)
    return addresses


def with_retries(action: Callable[[], None], destination: str, *, sleep: Callable[[float], None]) -> None:
    """Tries again what a network may break, with longer and longer waits.

    Args:
        action: What to do; repeating it must do no harm.
        destination: Where to, for messages.
        sleep: Waits between attempts.

    Raises:
        OutputError: The destination can't be written.
        StorageError: It failed again and again.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            action()
        except OCRFineTuneError:
            raise
        except (PermissionError, NotADirectoryError, IsADirectoryError, FileNotFoundError) as error:
            raise OutputError(
                f"export.destination: {destination} cannot be written: {error.strerror or error}",
                hint="the export itself is kept; correct destination or its permissions and run again",
            ) from error
        except Exception as error:
            if _is_read_only(error):
                raise OutputError(f"export.destination: {destination} cannot be written: {error}") from error
            if attempt == ATTEMPTS:
                raise StorageError(
                    f"export.destination: {destination}: gave up after {attempt} attempts: {error}",
                    hint="nothing half-written is left there; the export itself is kept, so run again",
                ) from error
            logger.warning("attempt %d to write to %s failed: %s", attempt, destination, error)
            sleep(_FIRST_WAIT_SECONDS * 2 ** (attempt - 1))
        else:
            return


def _is_read_only(error: Exception) -> bool:
    import errno

    return isinstance(error, OSError) and error.errno == errno.EROFS


def _copy(system: Any, file: Path, target: str) -> None:
    protocols = {system.protocol} if isinstance(system.protocol, str) else set(system.protocol)
    parent = target.rsplit("/", 1)[0]
    # An object of a store appears when its upload is complete. `put_file`, not `open`: a file of fsspec that is closed
    # by an exception completes the upload of what it has got so far.
    whole = bool(protocols & _OBJECT_STORES)
    aside = target if whole else f"{parent}/.{file.name}.{uuid.uuid4().hex[:8]}"
    if not whole:
        # A store has no folders to make; for a misspelt bucket this would make one of that name.
        system.makedirs(parent, exist_ok=True)
    try:
        system.put_file(str(file), aside)
        if not whole:
            system.mv(aside, target)
        size = system.info(target)["size"]
        if size != file.stat().st_size:
            raise OSError(f"{target} has {size} of {file.stat().st_size} bytes")
    finally:
        if not whole and system.exists(aside):
            system.rm(aside)
