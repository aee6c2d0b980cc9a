"""The files of a source, wherever they lie: a folder, a zip or a tar archive, read in place.

Everything above this module names files by their path inside the source, with `/` between the parts. Names are compared
in Unicode's composed form, because one machine writes `é` as one code point and the next as two.
"""

from __future__ import annotations

import io
import os
import stat
import tarfile
import threading
import unicodedata
import zipfile
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, NamedTuple

from ocr_finetune_api.exit_codes import DataError, InputMissingError

__all__ = ["ArchiveFiles", "Files", "FolderFiles", "Member", "TarFiles", "ZipFiles", "open_files"]

_PICTURE_SUFFIXES = frozenset({"jpg", "jpeg", "png", "bmp", "webp", "tif", "tiff", "gif", "ppm", "pgm", "pbm", "jp2"})


class Member(NamedTuple):
    """One file of a source, found.

    Attributes:
        name: Its name in the source.
        size: Bytes.
        stamp: Changes when the content does: the time of modification, or the checksum an archive keeps.
        offset: Where its bytes begin in an uncompressed archive; -1 elsewhere.
    """

    name: str
    size: int
    stamp: int
    offset: int = -1


class Files(ABC):
    """The files of one source."""

    label: str

    def __init__(self, label: str) -> None:
        self.label = label
        self._by_name: dict[str, list[str]] | None = None
        self._kinds: tuple[list[str], list[str]] | None = None

    @abstractmethod
    def names(self) -> list[str]:
        """All files, sorted by name; walks the source on the first call."""

    @abstractmethod
    def find(self, name: str) -> Member | None:
        """The file of this name, or None."""

    @abstractmethod
    def read(self, member: Member) -> bytes:
        """The content of a file.

        Raises:
            OSError: It can't be read.
        """

    def read_text(self, name: str) -> str:
        """The text of a file: UTF-8 with or without a byte-order mark, UTF-16 with one, or else GB18030.

        Raises:
            OSError: There is no such file, or it can't be read.
            UnicodeDecodeError: It is none of these.
        """
        member = self.find(name)
        if member is None:
            raise FileNotFoundError(f"{self.place(name)}: no such file")
        return decode_text(self.read(member))

    def count(self, list_file: str = "") -> int:
        """About how many labelled pictures there are: the lines of a list, or else all pictures."""
        if not list_file:
            return len(self.pictures())
        member = self.find(list_file)
        try:
            return self.read(member).count(b"\n") if member is not None else 0
        except OSError:
            return 0  # reading it says so

    def place(self, name: str, line: int | None = None) -> str:
        """How a file is named in messages."""
        shown = name if name.isascii() else name.encode("utf-8", "backslashreplace").decode()
        return shown if line is None else f"{shown}:{line}"

    def by_file_name(self, name: str) -> list[str]:
        """All files whose last part is that of `name`, compared without regard to case."""
        if self._by_name is None:
            self._by_name = {}
            for known in self.names():
                self._by_name.setdefault(_last_part(known), []).append(known)
        return self._by_name.get(_last_part(name), [])

    def pictures(self, under: str = "") -> list[str]:
        """All pictures by their suffix, in a folder of the source."""
        found = self._sorted_out()[0]
        return [name for name in found if name.startswith(f"{under}/")] if under else found

    def others(self) -> list[str]:
        """All files that are no pictures by their suffix: lists, tables, states. They are few, and asked for often."""
        return self._sorted_out()[1]

    def _sorted_out(self) -> tuple[list[str], list[str]]:
        if self._kinds is None:
            self._kinds = ([], [])
            pictures, others = self._kinds
            for name in self.names():
                suffix = name.rpartition(".")[2].lower()
                (pictures if suffix in _PICTURE_SUFFIXES else others).append(name)
        return self._kinds


def _last_part(name: str) -> str:
    return unicodedata.normalize("NFC", name.replace("\\", "/").rsplit("/", 1)[-1]).casefold()


def decode_text(content: bytes) -> str:
    """Turns a label file's bytes into text; see `Files.read_text`."""
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return content.decode("utf-16")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        try:
            return content.decode("gb18030")
        except UnicodeDecodeError:
            raise error from None


class FolderFiles(Files):
    """A folder. Names may lead out of it with `..`: lists often lie beside the pictures, not above them."""

    def __init__(self, root: Path) -> None:
        super().__init__(str(root))
        self.root = root
        self._prefix = f"{root}{os.sep}"
        self._names: list[str] | None = None
        self._composed: dict[str, str] | None = None

    def __getstate__(self) -> dict[str, Any]:
        nothing = dict.fromkeys(("_names", "_composed", "_by_name", "_kinds"))
        return {"label": self.label, "root": self.root, "_prefix": self._prefix, **nothing}

    def names(self) -> list[str]:
        """All files below the folder, hidden ones left out; links are followed once."""
        if self._names is None:
            found: list[str] = []
            seen: set[tuple[int, int]] = set()
            for folder, folders, files in os.walk(self.root, followlinks=True):
                info = Path(folder).stat()
                if (info.st_dev, info.st_ino) in seen:
                    folders.clear()
                    continue
                seen.add((info.st_dev, info.st_ino))
                folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
                base = os.path.relpath(folder, self.root).replace(os.sep, "/")
                prefix = "" if base == "." else f"{base}/"
                found.extend(prefix + name for name in files if not name.startswith("."))
            self._names = sorted(found)
        return self._names

    def find(self, name: str) -> Member | None:
        """The file of this name; where none is spelt so, the one whose name has the same composed form."""
        if name.startswith("../"):
            whole = os.path.normpath(self.root / name)
            if whole.startswith(self._prefix):
                name = os.path.relpath(whole, self.root).replace(os.sep, "/")
        try:
            info = os.stat(self._path(name))  # noqa: PTH116 - a path object costs ten times the call
        except (OSError, ValueError):
            return self._find_composed(name)
        if not stat.S_ISREG(info.st_mode):
            return None
        return Member(name, info.st_size, info.st_mtime_ns)

    def _find_composed(self, name: str) -> Member | None:
        if name.isascii() or "\0" in name:
            return None
        if self._composed is None:
            self._composed = {unicodedata.normalize("NFC", n): n for n in self.names() if not n.isascii()}
        known = self._composed.get(unicodedata.normalize("NFC", name))
        return None if known is None or known == name else self.find(known)

    def read(self, member: Member) -> bytes:
        """The content of a file."""
        descriptor = os.open(self._path(member.name), os.O_RDONLY)
        try:
            # Its size is known; one byte more tells whether it has grown since.
            content = os.read(descriptor, member.size + 1)
            if len(content) == member.size:
                return content
            with io.FileIO(descriptor, closefd=False) as file:
                return content + file.readall()
        finally:
            os.close(descriptor)

    def _path(self, name: str) -> str:
        return name if name.startswith(os.sep) else self._prefix + name


class ArchiveFiles(Files):
    """An archive, indexed on first use and never unpacked."""

    def __init__(self, path: Path) -> None:
        super().__init__(path.name)
        self.path = path
        self._members: dict[str, Member] | None = None
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"label": self.label, "path": self.path, **dict.fromkeys(("_members", "_by_name", "_kinds"))}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    @abstractmethod
    def _index(self) -> dict[str, Member]:
        """All files by their composed name."""

    def _all(self) -> dict[str, Member]:
        with self._lock:
            if self._members is None:
                self._members = self._index()
            return self._members

    def names(self) -> list[str]:
        """All files, sorted."""
        return sorted(member.name for member in self._all().values())

    def find(self, name: str) -> Member | None:
        """The member of this name."""
        return self._all().get(unicodedata.normalize("NFC", os.path.normpath(name).replace(os.sep, "/")))

    def place(self, name: str, line: int | None = None) -> str:
        """A member is named behind its archive."""
        return f"{self.label}!{super().place(name, line)}"


class ZipFiles(ArchiveFiles):
    """A zip archive."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._zip: zipfile.ZipFile | None = None
        self._infos: dict[str, zipfile.ZipInfo] = {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._zip = None
        self._infos = {}

    def _index(self) -> dict[str, Member]:
        try:
            self._zip = zipfile.ZipFile(self.path)
        except (zipfile.BadZipFile, OSError) as error:
            raise DataError(f"{self.path}: is not a zip archive that can be read ({error})") from error
        members: dict[str, Member] = {}
        for info in self._zip.infolist():
            name = unicodedata.normalize("NFC", _zip_name(info))
            if info.is_dir() or _is_noise(name):
                continue
            self._infos[name] = info
            members[name] = Member(name, info.file_size, info.CRC)
        return members

    def read(self, member: Member) -> bytes:
        """The content of a member; its checksum is verified."""
        self._all()
        if self._zip is None:
            raise FileNotFoundError(self.path)
        try:
            return self._zip.read(self._infos[member.name])
        except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError) as error:
            raise OSError(f"can't be taken out of the archive ({error})") from error


def _zip_name(info: zipfile.ZipInfo) -> str:
    """A member's name; programs of Chinese Windows write it in GBK without saying so."""
    if info.flag_bits & 0x800:
        return info.filename
    raw = info.filename.encode("cp437", "replace")
    names = []
    for encoding in ("utf-8", "gb18030"):
        try:
            names.append(raw.decode(encoding))
        except UnicodeDecodeError:
            continue
    # Two bytes of GBK can also be two of UTF-8, but then as letters that no file name has.
    return next((name for name in names if all(_is_usual(c) for c in name)), (names or [info.filename])[0])


def _is_usual(character: str) -> bool:
    return not 0x180 <= ord(character) < 0x391


def _is_noise(name: str) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in name.split("/"))


class TarFiles(ArchiveFiles):
    """An uncompressed tar archive; members are read at their offset, by any number of processes at once."""

    def _index(self) -> dict[str, Member]:
        members: dict[str, Member] = {}
        try:
            with tarfile.open(self.path, "r:") as archive:
                for info in archive:
                    name = unicodedata.normalize("NFC", os.path.normpath(info.name).replace(os.sep, "/"))
                    if info.isfile() and not _is_noise(name):
                        members[name] = Member(name, info.size, int(info.mtime), info.offset_data)
        except (tarfile.TarError, EOFError, OSError) as error:
            raise DataError(f"{self.path}: is not a tar archive that can be read to its end ({error})") from error
        return members

    def read(self, member: Member) -> bytes:
        """The content of a member."""
        with self.path.open("rb") as file:
            file.seek(member.offset)
            content = file.read(member.size)
        if len(content) != member.size:
            raise OSError("the archive ends before this member does")
        return content


def open_files(path: Path) -> tuple[Files, str]:
    """Opens what a local path names.

    Args:
        path: A folder, an archive, or a file in a folder (a label list).

    Returns:
        The files, and the name of the list among them where the path names one, else an empty string.

    Raises:
        InputMissingError: Nothing is there, or it may not be read.
    """
    try:
        if path.is_dir():
            os.scandir(path).close()
            return _folder(path), ""
        with path.open("rb") as file:
            head = file.read(512)
    except FileNotFoundError:
        raise InputMissingError(f"{path}: does not exist", hint=_nearest_parent(path)) from None
    except OSError as error:
        raise InputMissingError(f"{path}: can't be read: {error.strerror}") from error
    if path.suffix.lower() == ".zip" or (head[:4] == b"PK\x03\x04" and path.suffix.lower() != ".xlsx"):
        return ZipFiles(path), ""
    if path.suffix.lower() == ".tar" or head[257:262] == b"ustar":
        return TarFiles(path), ""
    if path.name == "data.mdb":
        return _folder(path.parent), ""
    return FolderFiles(path.parent), path.name


def _folder(path: Path) -> Files:
    """A folder of files, or of databases."""
    if not (path / "data.mdb").is_file() and not _has_database_below(path):
        return FolderFiles(path)
    from ocr_finetune_trainer.data.lmdb_files import LmdbFiles, databases_below

    return LmdbFiles(path, databases_below(path))


def _has_database_below(path: Path) -> bool:
    with os.scandir(path) as entries:
        return any(entry.is_dir() and (path / entry.name / "data.mdb").is_file() for entry in entries)


def _nearest_parent(path: Path) -> str:
    for parent in path.parents:
        if parent.is_dir():
            names = sorted(entry.name for entry in parent.iterdir())[:8]
            return f"{parent} exists and holds {', '.join(names) or 'nothing'}"
    return ""
