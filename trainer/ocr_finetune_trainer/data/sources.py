"""From a source's address to its files on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from ocr_finetune_api.exit_codes import InputMissingError
from ocr_finetune_trainer.data.files import Files, open_files

if TYPE_CHECKING:
    from ocr_finetune_api.spec import Source

__all__ = ["Opened", "Opener", "local_path"]

# Where a claim is mounted in a pod; on a laptop a pvc:// address has no meaning.
CLAIMS = Path("/data")


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A source whose files can be read.

    Attributes:
        files: Its files.
        list_file: The label list that its address or the manifest names; empty if neither does.
    """

    files: Files
    list_file: str


def local_path(uri: str) -> Path | None:
    """The path that an address means on this machine, or None if it has to be fetched."""
    parts = urlsplit(uri)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    if parts.scheme == "pvc":
        return CLAIMS / parts.netloc / unquote(parts.path).lstrip("/")
    if len(parts.scheme) > 1 and "://" in uri:
        return None
    return Path(uri).expanduser()


class Opener:
    """Opens sources."""

    def open(self, source: Source) -> Opened:
        """Opens a source.

        Raises:
            InputMissingError: It is not there, or can't be read.
            DataError: It is an archive that is damaged.
        """
        path = local_path(source.uri)
        if path is None:
            raise InputMissingError(f"{source.uri}: addresses of this kind can't be read")
        files, named = open_files(path)
        return Opened(files=files, list_file=source.list_file or named)
