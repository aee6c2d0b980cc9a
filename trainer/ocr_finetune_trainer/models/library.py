"""The official weights on this machine: where they lie, how they get there, and that they are still the same.

A library is a folder with a folder for each model: its `.pdparams`, for recognisers the official `inference.yml` (the
weights carry no dictionary, this file does), and `checksums.json`, written on first use and checked after.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ocr_finetune_api.exit_codes import ConfigurationError, DataError, InputMissingError, OutputError
from ocr_finetune_api.model_table import OFFICIAL_SITE, TABLE, Kind, ModelInfo, lookup
from ocr_finetune_trainer.models.download import download

HOME_VARIABLE = "OCRFT_MODEL_HOME"
MIRROR_VARIABLE = "OCRFT_MODEL_MIRROR"
CONFIG = "inference.yml"
_CHECKSUMS = "checksums.json"
_LARGEST_CONFIG = 16 << 20

Progress = Callable[[str, int, int], None]
"""Called with a file's name, the bytes that are there and the bytes in all (0 if unknown)."""


@dataclass(frozen=True, kw_only=True)
class ModelFiles:
    """A model's files, checked.

    Attributes:
        name: Its name in the model table.
        weights: The `.pdparams` file.
        config: The official `inference.yml`; None for models without a dictionary.
        sha256: Of the weights, hexadecimal.
    """

    name: str
    weights: Path
    config: Path | None
    sha256: str


class Library:
    """Finds, fetches, packs and checks official weights.

    Args:
        homes: Folders to look in, in this order. What is fetched goes into the first that can be written.
        mirror: What stands in place of the official site; empty for the site itself.
    """

    def __init__(self, homes: Sequence[Path], *, mirror: str = "") -> None:
        self.homes = tuple(homes)
        self.site = (mirror or OFFICIAL_SITE).rstrip("/")

    @classmethod
    def from_environment(cls, *, cache: Path | None = None) -> Library:
        """The library that `OCRFT_MODEL_HOME` and `OCRFT_MODEL_MIRROR` name.

        Args:
            cache: A further folder, such as a workspace's; without it and the variable, one below the user's cache.
        """
        home = os.environ.get(HOME_VARIABLE, "")
        homes = [Path(home).expanduser()] if home else []
        if cache is not None:
            homes.append(cache)
        if not homes:
            base = os.environ.get("XDG_CACHE_HOME", "")
            homes.append((Path(base) if base else Path.home() / ".cache") / "ocrft" / "models")
        return cls(homes, mirror=os.environ.get(MIRROR_VARIABLE, ""))

    def find(self, name: str) -> ModelFiles | None:
        """The files of a model, if they are on this machine.

        Raises:
            ConfigurationError: No official weights are published for it.
            DataError: A file is not what it was when it was first used.
        """
        info = _published(name)
        for home in self.homes:
            folder = home / _folder(info)
            if all((folder / file).is_file() for file in _files(info)):
                problems = _verify(folder, info)
                if problems:
                    raise DataError(*problems, hint=f"delete the file and fetch it again: ocrft models pull {name}")
                return _model_files(folder, info)
        return None

    def pull(self, name: str, *, progress: Progress | None = None) -> ModelFiles:
        """The files of a model, fetched if they are not on this machine.

        Raises:
            ConfigurationError: No official weights are published for it.
            InputMissingError: They can't be fetched.
            DataError: What was fetched is not what it was when it was first used, or is no such file.
            OutputError: No folder can be written.
        """
        found = self.find(name)
        if found is not None:
            return found
        info = _published(name)
        return _model_files(self._pull_files(info, _urls(info), progress), info)

    def pull_config(self, name: str, *, progress: Progress | None = None) -> Path:
        """A model's official `inference.yml` alone, which has its characters; fetched if it is not on this machine.

        Raises:
            ConfigurationError: There is no such model, or it has no characters.
            InputMissingError: It can't be fetched.
            DataError: It is not what it was when it was first used.
            OutputError: No folder can be written.
        """
        info = _published(name)
        if not _has_characters(info):
            raise ConfigurationError(f"{name}: reads no text, so it has no dictionary", hint="name a recognition model")
        folder = next((f for home in self.homes if ((f := home / _folder(info)) / CONFIG).is_file()), None)
        if folder is None:
            folder = self._pull_files(info, {CONFIG: info.inference_url}, progress)
        _check_or_record(folder, CONFIG, url=info.inference_url)
        return folder / CONFIG

    def _pull_files(self, info: ModelInfo, urls: Mapping[str, str], progress: Progress | None) -> Path:
        folder = self._writable() / _folder(info)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with _locked(folder):
                for file, url in urls.items():
                    if not (folder / file).is_file():
                        self._fetch(file, url, folder, progress)
        except PermissionError as error:
            raise OutputError(f"{folder}: can't be written: {error.strerror}") from error
        return folder

    def verify(self, names: Sequence[str] = ()) -> dict[str, list[str]]:
        """Reads every file again.

        Args:
            names: Models; none means all that are there.

        Returns:
            For each model what is wrong with it; empty lists are good.
        """
        result: dict[str, list[str]] = {}
        for name in names or self.present():
            info = _published(name)
            folder = self._folder_with(info)
            if folder is None:
                result[name] = [f"{name}: not on this machine; ocrft models pull {name} fetches it"]
            else:
                result[name] = _verify(folder, info)
        return result

    def present(self) -> list[str]:
        """The models whose files are on this machine."""
        return [name for name, info in TABLE.items() if info.weights_url and self._folder_with(info) is not None]

    def pack(self, names: Sequence[str], target: Path, *, progress: Progress | None = None) -> list[str]:
        """Writes models into one tar archive, to be carried to where there is no network.

        Args:
            names: Models; those that are not on this machine are fetched.
            target: The archive.
            progress: Is told how far each download is.

        Returns:
            The names inside the archive.
        """
        members: list[tuple[str, Path]] = []
        for name in names:
            files = self.pull(name, progress=progress)
            folder = files.weights.parent
            wanted = (*_files(_published(name)), _CHECKSUMS)
            members += [(f"{folder.name}/{file}", folder / file) for file in wanted if (folder / file).is_file()]
        members = list(dict.fromkeys(members))
        try:
            aside = target.with_name(f".{target.name}.{os.getpid()}")
            with tarfile.open(aside, mode="w") as archive:
                for member, path in members:
                    archive.add(path, arcname=member, recursive=False)
            aside.replace(target)
        except OSError as error:
            raise OutputError(f"{target}: can't be written: {error.strerror or error}") from error
        return [member for member, _ in members]

    def unpack(self, source: Path) -> list[str]:
        """Takes models out of an archive that `pack` wrote.

        Returns:
            The names of their folders.

        Raises:
            InputMissingError: There is no such archive.
            DataError: It is damaged, or holds anything else; nothing is kept then.
        """
        known = {
            f"{_folder(info)}/{file}": info
            for info in TABLE.values()
            if info.weights_url
            for file in (*_files(info), _CHECKSUMS)
        }
        home = self._writable()
        home.mkdir(parents=True, exist_ok=True)
        try:
            with tempfile.TemporaryDirectory(dir=home, prefix=".unpack-") as aside, tarfile.open(source) as archive:
                infos = _extract(archive, known, Path(aside), source)
                problems = [p for info in infos for p in _verify(Path(aside) / _folder(info), info)]
                if problems:
                    raise DataError(*problems, hint="the archive is damaged: copy or pack it again")
                for folder in {_folder(info) for info in infos}:
                    (home / folder).mkdir(exist_ok=True)
                    for path in (Path(aside) / folder).iterdir():
                        path.replace(home / folder / path.name)
        except FileNotFoundError as error:
            raise InputMissingError(f"{source}: there is no such archive") from error
        except (tarfile.TarError, EOFError) as error:
            raise DataError(f"{source}: not a readable archive: {error}") from None
        return sorted({_folder(info) for info in infos})

    def _writable(self) -> Path:
        for home in self.homes:
            parent = next(p for p in (home, *home.parents) if p.exists())
            if parent.is_dir() and os.access(parent, os.W_OK):
                return home
        raise OutputError(
            f"{self.homes[0]}: can't be written, so no weights can be fetched",
            hint=f"set {HOME_VARIABLE} to a folder that can, or put the weights there beforehand",
        )

    def _folder_with(self, info: ModelInfo) -> Path | None:
        folders = [home / _folder(info) for home in self.homes]
        return next((f for f in folders if all((f / file).is_file() for file in _files(info))), None)

    def _fetch(self, file: str, url: str, folder: Path, progress: Progress | None) -> None:
        address = self.site + url.removeprefix(OFFICIAL_SITE)
        fetched = folder / (PurePosixPath(url).name if file == CONFIG else file)
        download(address, fetched, progress=None if progress is None else lambda at, of: progress(file, at, of))
        if file == CONFIG:
            _take_config(fetched, folder / CONFIG)
            fetched.unlink()
        try:
            _check_or_record(folder, file, url=address)
        except DataError:
            # a wrong file must not be found next time
            (folder / file).unlink()
            raise


def _published(name: str) -> ModelInfo:
    try:
        info = lookup(name)
    except KeyError as error:
        raise ConfigurationError(str(error.args[0])) from None
    if not info.weights_url:
        raise ConfigurationError(
            f"{name}: no official weights are published for it",
            hint="set model.pretrained to none or to the address of a .pdparams file",
        )
    return info


def _folder(info: ModelInfo) -> str:
    # models that share weights share their folder
    return PurePosixPath(info.weights_url).name.removesuffix("_pretrained.pdparams")


def _urls(info: ModelInfo) -> dict[str, str]:
    urls = {PurePosixPath(info.weights_url).name: info.weights_url}
    return {**urls, CONFIG: info.inference_url} if _has_characters(info) else urls


def _has_characters(info: ModelInfo) -> bool:
    # a table's dictionary is that of its structure tokens, which is the same for everybody
    return info.kind is Kind.RECOGNITION and info.dictionary_size > 0


def _files(info: ModelInfo) -> list[str]:
    return list(_urls(info))


def _model_files(folder: Path, info: ModelInfo) -> ModelFiles:
    weights = folder / PurePosixPath(info.weights_url).name
    return ModelFiles(
        name=info.name,
        weights=weights,
        config=folder / CONFIG if _has_characters(info) else None,
        sha256=_check_or_record(folder, weights.name, url=info.weights_url),
    )


def _verify(folder: Path, info: ModelInfo) -> list[str]:
    problems: list[str] = []
    for file in _files(info):
        try:
            _check_or_record(folder, file, url="")
        except DataError as error:
            problems += error.problems
    return problems


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_or_record(folder: Path, file: str, *, url: str) -> str:
    checksums = _read_checksums(folder)
    actual = sha256_of(folder / file)
    recorded = checksums.get(file, {}).get("sha256")
    if recorded is None:
        checksums[file] = {"sha256": actual, "size": (folder / file).stat().st_size, "url": url}
        _write_checksums(folder, checksums)
    elif recorded != actual:
        raise DataError(f"{folder / file}: wrong checksum: SHA-256 {actual}, on first use it was {recorded}")
    return actual


def _read_checksums(folder: Path) -> dict[str, dict[str, Any]]:
    path = folder / _CHECKSUMS
    if not path.exists():
        return {}
    try:
        document = json.loads(path.read_text())
    except ValueError as error:
        raise DataError(f"{path}: not readable: {error}", hint="delete it; checksums are then recorded anew") from None
    return {str(file): dict(entry) for file, entry in document.items()}


def _write_checksums(folder: Path, checksums: dict[str, dict[str, Any]]) -> None:
    if not os.access(folder, os.W_OK):
        return  # a library on a read-only volume comes with its checksums, or without any
    aside = folder / f".{_CHECKSUMS}.{os.getpid()}"
    aside.write_text(json.dumps(checksums, indent=2, sort_keys=True) + "\n")
    aside.replace(folder / _CHECKSUMS)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    # two runs that want the same model fetch it once
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _take_config(archive: Path, target: Path) -> None:
    try:
        with tarfile.open(archive) as tar:
            member = next((m for m in tar if m.isfile() and PurePosixPath(m.name).name == CONFIG), None)
            content = tar.extractfile(member) if member is not None and member.size <= _LARGEST_CONFIG else None
            if content is None:
                raise DataError(f"{archive}: there is no {CONFIG} in it")
            _write_bytes(target, content.read())
    except (tarfile.TarError, EOFError) as error:
        archive.unlink(missing_ok=True)
        raise DataError(f"{archive}: not a readable archive: {error}") from None


def _write_bytes(target: Path, content: bytes) -> None:
    aside = target.with_name(f".{target.name}.{os.getpid()}")
    aside.write_bytes(content)
    aside.replace(target)


def _extract(archive: tarfile.TarFile, known: dict[str, ModelInfo], aside: Path, source: Path) -> list[ModelInfo]:
    infos: dict[str, ModelInfo] = {}
    for member in archive:
        info = known.get(member.name)
        if info is None or not member.isfile():
            raise DataError(f"{source}: {member.name!r} is no file of a known model; nothing was unpacked")
        content = archive.extractfile(member) or io.BytesIO()
        (aside / member.name).parent.mkdir(exist_ok=True)
        with (aside / member.name).open("wb") as file:
            while chunk := content.read(1 << 20):
                file.write(chunk)
        infos[_folder(info)] = info
    for folder, info in infos.items():
        lacking = [file for file in _files(info) if not (aside / folder / file).is_file()]
        if lacking:
            raise DataError(f"{source}: {folder} lacks {', '.join(lacking)}; nothing was unpacked")
    return list(infos.values())
