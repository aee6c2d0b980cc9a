"""From a source's address to files on this machine: a path, a claim, or a copy of what lies elsewhere.

Copies are made in the workspace's cache, before any GPU is held. A file that is there under the server's own identity
(its ETag, or its time and size) is not fetched again, a download that broke goes on where it stopped, and what is
written aside gets its name only when it is whole.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from ocr_finetune_api.exit_codes import ConfigurationError, DataError, InputMissingError, StorageError
from ocr_finetune_trainer.data import oss
from ocr_finetune_trainer.data.compressed import is_compressed, unpack
from ocr_finetune_trainer.data.files import Files, open_files
from ocr_finetune_trainer.data.store import replace_file

if TYPE_CHECKING:
    from ocr_finetune_api.spec import CredentialSpec, Source

__all__ = ["CLAIMS", "Opened", "Opener", "local_path", "open_store"]

logger = logging.getLogger(__name__)

# Where the operator mounts claims; it writes plain paths below it into run configurations.
CLAIMS = Path("/claims")
DOWNLOADS = "downloads"
_OBJECT_STORES = ("s3", "gs", "gcs", "oss")
_PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "oss": "s3fs"}
_THREADS = 8
_NOTED_EVERY = 256  # files copied between two notes of what is there
# Keys of a credentials secret, as the file systems' own tools name them, and the options of fsspec they stand for.
_SECRET_KEYS = {
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_SESSION_TOKEN": "token",
}
_GOOGLE_KEYS = ("key.json", "credentials.json", "GOOGLE_APPLICATION_CREDENTIALS")


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


def open_store(uri: str, options: dict[str, Any]) -> tuple[Any, str]:
    """Opens the file system of an address.

    Args:
        uri: A path or an address of any kind that fsspec knows.
        options: What `Opener.options` gives for it.

    Returns:
        The file system of fsspec, and the path in it.

    Raises:
        ValueError: There is no such kind of address.
        ImportError: The package for it is not installed.
    """
    import fsspec

    address = f"s3://{uri.removeprefix('oss://')}" if uri.startswith("oss://") else uri
    system, root = fsspec.core.url_to_fs(address, **options)
    return system, str(root)


def _no_download(url: str, _target: Path, *, progress: Callable[[int, int], None] | None = None) -> None:  # noqa: ARG001
    raise InputMissingError(f"{url}: nothing here fetches such addresses")


@dataclass(frozen=True, kw_only=True)
class Opener:
    """Opens sources.

    Attributes:
        cache: The workspace's cache; copies lie in its folder `downloads`. None refuses other addresses than paths.
        download: Fetches an http(s) address into a file, going on with what is there, and tells `progress`.
        progress: Told how many bytes of an address are here, and how many there are in all (0 if nobody says).
        credentials: Which secrets are for which addresses; the longest prefix wins.
        secrets: The folder that holds a folder for each secret.
    """

    cache: Path | None = None
    download: Callable[..., None] = _no_download
    progress: Callable[[int, int], None] = lambda _done, _total: None
    credentials: Sequence[CredentialSpec] = ()
    secrets: Path | None = None

    def open(self, source: Source) -> Opened:
        """Opens a source, after it has been copied here where that is needed.

        Raises:
            InputMissingError: It is not there, or can't be reached.
            DataError: It is an archive that is damaged.
            ConfigurationError: Its address is of a kind that nothing here can read.
        """
        path = self.fetch(source.uri)
        if not is_compressed(path):
            files, named = open_files(path)
        elif self.cache is None:
            raise ConfigurationError(f"{source.uri}: is compressed, and there is no cache to unpack it in")
        else:
            files, named = open_files(unpack(path, folder=self.cache / DOWNLOADS))
            files.label = path.name
        return Opened(files=files, list_file=source.list_file or named)

    def fetch(self, uri: str) -> Path:
        """A path with the content of an address: the path that it means, or a copy.

        Raises:
            InputMissingError: It can't be reached.
            ConfigurationError: Its address is of a kind that nothing here can read.
        """
        path = local_path(uri)
        if path is not None:
            if uri.startswith("pvc://") and not path.exists():
                raise InputMissingError(
                    f"{uri}: claims are mounted on a cluster only", hint="give a path when running on this machine"
                )
            return path
        if self.cache is None:
            raise ConfigurationError(f"{uri}: only paths can be read here")
        scheme = urlsplit(uri).scheme
        if scheme in ("http", "https"):
            return self._from_web(uri)
        return self._from_store(uri, scheme)

    def _folder(self, uri: str) -> Path:
        assert self.cache is not None
        folder = self.cache / DOWNLOADS / hashlib.sha256(uri.encode()).hexdigest()[:24]
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _from_web(self, uri: str) -> Path:
        import requests

        address, _, wanted = uri.partition("#sha256=")
        folder = self._folder(address)
        target = folder / (PurePosixPath(unquote(urlsplit(address).path)).name or "index")
        notes = folder / "source.json"
        known = _read_json(notes)
        try:
            answer = requests.head(address, allow_redirects=True, timeout=30)
            headers = answer.headers
            identity = headers.get("ETag") or f"{headers.get('Last-Modified', '')} {headers.get('Content-Length', '')}"
            # Some servers refuse HEAD; the download itself then says whether there is such a file.
            reachable = answer.ok
        except requests.RequestException as error:
            if target.is_file() and known.get("size") == target.stat().st_size:
                logger.warning("%s can't be reached (%s); the copy of it in the cache is used", address, error)
                return target
            raise InputMissingError(
                f"{address}: can't be reached ({type(error).__name__})", hint="check the address and the network"
            ) from error
        same = reachable and target.is_file() and known.get("identity") == identity.strip()
        if not same or known.get("size") != target.stat().st_size:
            target.unlink(missing_ok=True)
            self.download(address, target, progress=self.progress)
            known = {
                "uri": address,
                "identity": identity.strip(),
                "size": target.stat().st_size,
                "sha256": _sha(target),
            }
            replace_file(notes, json.dumps(known).encode())
        if wanted and known["sha256"] != wanted.lower():
            raise DataError(f"{address}: its SHA-256 is {known['sha256']}, not {wanted}", hint="correct either of them")
        return target

    def _from_store(self, uri: str, scheme: str) -> Path:
        options = self._options(uri, scheme)
        try:
            system, root = open_store(uri, options)
        except ValueError as error:
            raise ConfigurationError(
                f"{uri}: addresses that begin with {scheme}:// can't be read ({error})",
                hint="use a path, file://, pvc://, http(s)://, s3://, gs:// or oss://",
            ) from error
        except ImportError as error:
            raise ConfigurationError(
                f"{uri}: reading {scheme}:// needs the package {_PACKAGES.get(scheme, scheme)}",
                hint=f"pip install {_PACKAGES.get(scheme, scheme)}",
            ) from error
        try:
            return self._mirror(system, root, uri)
        except FileNotFoundError as error:
            raise InputMissingError(
                f"{uri}: does not exist", hint="check the address; some stores also say so to who may not list it"
            ) from error
        except PermissionError as error:
            raise InputMissingError(
                f"{uri}: access is refused ({error})", hint="give spec.credentials with this prefix and a secret"
            ) from error
        except OSError as error:
            said = _refusal(error)
            if error.errno is not None and not said:  # of this machine's disk, or a store that fails
                raise StorageError(f"{uri}: can't be copied here: {error.strerror}") from error
            raise InputMissingError(f"{uri}: can't be read ({said or error})") from error
        except Exception as error:  # each store has exceptions of its own, for credentials most of all
            raise InputMissingError(
                f"{uri}: can't be read ({type(error).__name__}: {error})",
                hint="give spec.credentials with this prefix, an endpoint and a secret, or the environment its tools read",
            ) from error

    def options(self, uri: str) -> dict[str, Any]:
        """What fsspec opens the file system of an address with; exports are delivered with it, too."""
        return self._options(uri, urlsplit(uri).scheme)

    def _options(self, uri: str, scheme: str) -> dict[str, Any]:
        """What the file system is opened with: the secret's files, endpoint and region of the longest prefix."""
        if scheme not in _OBJECT_STORES:
            return {}
        # gcsfs asks for a bucket's kind over gRPC, and waits a minute where only HTTP gets through; files need none of it.
        os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        fitting = [given for given in self.credentials if uri.startswith(given.prefix)]
        given = max(fitting, key=lambda one: len(one.prefix), default=None)
        folder = self.secrets / given.secret_name if given is not None and self.secrets is not None else None
        if folder is not None and not folder.is_dir():
            folder = None
        if scheme == "oss":
            keys: Mapping[str, str] = os.environ if folder is None else _texts(folder, oss.SECRET_KEYS)
            if folder is not None and not keys:
                raise ConfigurationError(
                    f"{uri}: its secret {folder.name} has no OSS_ACCESS_KEY_ID",
                    hint=f"keys: {', '.join(oss.SECRET_KEYS)}",
                )
            return oss.s3_options(
                uri,
                keys=keys,
                endpoint=(given.endpoint if given is not None else "") or os.environ.get("OSS_ENDPOINT", ""),
                region=given.region if given is not None else "",
            )
        if given is None:
            return {}
        options: dict[str, Any] = {}
        if folder is not None:
            options.update({_SECRET_KEYS[name]: text for name, text in _texts(folder, _SECRET_KEYS).items()})
            google = next((folder / name for name in _GOOGLE_KEYS if (folder / name).is_file()), None)
            if google is not None and scheme in ("gs", "gcs"):
                options["token"] = str(google)
        if given.endpoint:
            options["endpoint_url"] = given.endpoint
        if given.region and scheme == "s3":
            options["client_kwargs"] = {"region_name": given.region}
        return options

    def _mirror(self, system: Any, root: str, uri: str) -> Path:
        folder = self._folder(uri)
        notes = folder / "source.json"
        known: dict[str, Any] = _read_json(notes).get("files", {})
        if system.isfile(root):
            found, base = {root: system.info(root)}, root.rpartition("/")[0]
        else:
            found, base = system.find(root, detail=True), root.rstrip("/")
        if not found:
            raise FileNotFoundError(uri)
        content = folder / "content"
        wanted = {name[len(base) :].lstrip("/"): (name, info) for name, info in found.items()}
        for gone in set(known) - set(wanted):
            (content / gone).unlink(missing_ok=True)
        files = {
            inside: known[inside]
            for inside, (_, info) in wanted.items()
            if known.get(inside) == _identity(info) and (content / inside).is_file()
        }

        counted = _Counted(
            self.progress,
            done=sum(wanted[inside][1].get("size") or 0 for inside in files),
            total=sum(info.get("size") or 0 for _, info in wanted.values()),
        )

        def copy(inside: str) -> None:
            name, info = wanted[inside]
            _copy(system, name, content / inside, size=info.get("size"), counted=counted)
            files[inside] = _identity(info)

        def write_down() -> None:
            replace_file(notes, json.dumps({"uri": uri, "files": dict(files)}, ensure_ascii=False).encode())

        with ThreadPoolExecutor(_THREADS) as pool:
            copies = [pool.submit(copy, inside) for inside in wanted if inside not in files]
            try:
                for number, future in enumerate(as_completed(copies), start=1):
                    future.result()
                    if number % _NOTED_EVERY == 0:  # what a kill leaves is not fetched again
                        write_down()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
                write_down()
        return content / next(iter(wanted)) if system.isfile(root) else content


class _Counted:
    """Counts the bytes that several threads copy."""

    def __init__(self, tell: Callable[[int, int], None], *, done: int, total: int) -> None:
        self._tell = tell
        self._done = done
        self._total = total
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        with self._lock:
            self._done += count
            self._tell(self._done, self._total)

    def of_file(self) -> Any:
        """What fsspec tells about one file; not every store's package does before the end."""
        from fsspec.callbacks import Callback

        counted = self

        class Told(Callback):  # type: ignore[misc]
            before = 0

            def call(self, hook_name: str | None = None, **kwargs: Any) -> None:  # noqa: ARG002
                counted.add(self.value - self.before)
                self.before = self.value

        return Told()


def _copy(system: Any, name: str, target: Path, *, size: int | None, counted: _Counted) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{target.name}.part")
    told = counted.of_file()
    system.get_file(name, str(aside), callback=told)
    there = aside.stat().st_size
    counted.add(there - told.before)
    if size is not None and there != size:
        aside.unlink()
        raise ConnectionError(f"{name} came with {there} of {size} bytes")
    aside.replace(target)


def _texts(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """The contents of those files of a secret that are there, without the line's end that editors add."""
    return {name: (folder / name).read_text(encoding="utf-8").strip() for name in names if (folder / name).is_file()}


def _refusal(error: OSError) -> str:
    """What a store said no with, or nothing; s3fs gives most of such answers a number of an error of the disk."""
    answer = getattr(error.__cause__ or error.__context__, "response", None)
    if not isinstance(answer, dict) or not 400 <= answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) < 500:
        return ""
    said = answer.get("Error", {})
    return f"{said.get('Code')}: {said.get('Message')}"


def _identity(info: dict[str, Any]) -> str:
    mark = (
        info.get("ETag") or info.get("etag") or info.get("md5Hash") or info.get("LastModified") or info.get("created")
    )
    return f"{info.get('size')} {mark}"


def _sha(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return {}
    return values if isinstance(values, dict) else {}
