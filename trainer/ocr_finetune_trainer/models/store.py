"""The weights a run starts from: found wherever the manifest says, checked, and laid into the run's folder.

Prepare does this before any GPU is held; training and evaluation read only what lies here. A recogniser's weights are
worth nothing without the dictionary they were trained with, so both are kept together and must fit each other.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import yaml
from numpy.typing import NDArray

from ocr_finetune_api.exit_codes import ConfigurationError, DataError, InputMissingError
from ocr_finetune_api.model_table import Kind, lookup
from ocr_finetune_api.workspace import Workspace
from ocr_finetune_trainer.data.sources import local_path
from ocr_finetune_trainer.dictionary import Dictionary
from ocr_finetune_trainer.models.download import download
from ocr_finetune_trainer.models.library import CONFIG, Library, ModelFiles, Progress, sha256_of
from ocr_finetune_trainer.models.pdparams import read_weights

if TYPE_CHECKING:
    from ocr_finetune_trainer.models.weights import LoadReport

Arrays = Mapping[str, NDArray[Any]]
Fetch = Callable[[str], Path]

_WEIGHTS = "weights"  # .pdparams or .safetensors
_DICTIONARY = "dictionary.txt"
_SOURCE = "source.json"
_HEADS = ("head.ctc_head.fc.bias", "head.ctc_head.fc2.bias", "head.fc.bias")


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """Weights in a run's folder.

    Attributes:
        weights: The file.
        dictionary: What they were trained with; None for models that do not read.
        source: Where they came from, for people.
        sha256: Of the file, hexadecimal.
    """

    weights: Path
    dictionary: Dictionary | None
    source: str
    sha256: str


def obtain(
    name: str,
    pretrained: str,
    *,
    workspace: Workspace,
    best_of: Callable[[Workspace], Arrays],
    library: Library | None = None,
    fetch: Fetch | None = None,
    progress: Progress | None = None,
) -> Pretrained | None:
    """Finds, checks and lays down the weights that a run starts from.

    Args:
        name: A name of the model table.
        pretrained: `official`, `none`, `run://other`, or the path or address of a `.pdparams` file. Beside such a file
            lies its dictionary: `<same name>.txt`, `dictionary.txt` or `inference.yml`. Without one the official
            dictionary is taken, if it has as many characters as the weights have classes.
        workspace: The run's files; `weights/` in them is replaced.
        best_of: Reads the weights of another run's best checkpoint.
        library: The official weights; None takes what the environment and the workspace's cache say.
        fetch: Copies a file of object storage (s3, gs, oss) here; None can't.
        progress: Is told how far a download is.

    Returns:
        The weights; None for `none`.

    Raises:
        ConfigurationError: There are no official weights for this model, or an address of a kind that can't be read.
        InputMissingError: Something is not there or can't be reached.
        DataError: A file is damaged or holds more than arrays, has a wrong checksum, or does not fit its dictionary.
    """
    if pretrained == "none":
        return None
    shelf = library or Library.from_environment(cache=workspace.cache / "models")
    reads = lookup(name).kind is Kind.RECOGNITION
    workspace.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=workspace.folder, prefix=".weights-") as aside_name:
        aside = Path(aside_name)
        dictionary: Dictionary | None
        if pretrained.startswith("run://"):
            file, dictionary = _of_run(pretrained, workspace, aside, best_of=best_of, reads=reads)
        elif pretrained == "official":
            file, dictionary = _official(shelf.pull(name, progress=progress), aside)
        else:
            own = _Own(uri=pretrained, aside=aside, fetch=fetch, progress=progress)
            file, dictionary = _own(name, own, library=shelf, reads=reads)
        result = Pretrained(weights=file, dictionary=dictionary, source=pretrained, sha256=sha256_of(file))
        _lay_down(result, aside, workspace.weights, of=name)
    return Pretrained(
        weights=workspace.weights / file.name, dictionary=dictionary, source=pretrained, sha256=result.sha256
    )


def load_prepared(folder: Path) -> tuple[dict[str, NDArray[Any]], Dictionary | None, str]:
    """Reads what `obtain` laid down.

    Args:
        folder: `Workspace.weights`.

    Returns:
        Arrays by name, the dictionary they were trained with (None for models that do not read), and their source.

    Raises:
        InputMissingError: There is nothing.
        DataError: It is not what was laid down.
    """
    path = folder / _SOURCE
    if not path.exists():
        raise InputMissingError(f"{folder}: there are no prepared weights", hint="run the prepare stage first")
    document = json.loads(path.read_text(encoding="utf-8"))
    file = folder / document["file"]
    if not file.exists() or sha256_of(file) != document["sha256"]:
        raise DataError(f"{file}: not the file that was prepared", hint="run the prepare stage again")
    space = document["space"]
    dictionary = Dictionary.load(folder / _DICTIONARY, use_space=space) if space is not None else None
    return read_weights(file), dictionary, str(document["source"])


def fit(name: str, folder: Path, *, guided: bool, dictionary: Dictionary | None = None) -> LoadReport:
    """Tries what `obtain` laid down on its model, before any device is held for it.

    Args:
        name: A name of the model table.
        folder: `Workspace.weights`.
        guided: Whether the guided branch will be trained.
        dictionary: The run's characters; None for those that the weights were trained with.

    Returns:
        What would become of every tensor.

    Raises:
        DataError: The weights are of another model.
    """
    from ocr_finetune_trainer import models
    from ocr_finetune_trainer.models.weights import load_weights

    arrays, old, source = load_prepared(folder)
    new = dictionary or old
    # a backbone alone comes without characters: its head starts at random, whatever it has
    model = models.build(name, characters=new.size if new is not None else 1, guided=guided and lookup(name).can_guide)
    return load_weights(model, arrays, source=source, old=old, new=new)


def official_dictionary(config: Path) -> tuple[str, ...]:
    """The characters of an official `inference.yml`, in the order of their classes, without the space.

    Raises:
        DataError: It holds none.
    """
    # the C loader reads 18,000 entries in a tenth of a second, the other one takes ten
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        document = yaml.load(config.read_text(encoding="utf-8"), Loader=loader)  # noqa: S506 - both are safe loaders
        characters = document["PostProcess"]["character_dict"]
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise DataError(f"{config}: no inference.yml with a dictionary: {error}") from None
    if not isinstance(characters, list) or not characters:
        raise DataError(f"{config}: no inference.yml with a dictionary: character_dict is no list")
    return tuple(str(character) for character in characters)


def classes_of(arrays: Arrays) -> int | None:
    """How many classes the CTC head in a file has; None if it has none."""
    names = [name for name in arrays if name.endswith(_HEADS)]
    students = [name for name in names if not name.startswith("Teacher.")]
    return int(arrays[(students or names)[0]].shape[0]) if names else None


def _official(files: ModelFiles, aside: Path) -> tuple[Path, Dictionary | None]:
    file = _placed(files.weights, aside)
    if files.config is None:
        read_weights(file)
        return file, None
    characters = official_dictionary(files.config)
    classes = classes_of(read_weights(file))
    if classes != len(characters) + 2:
        raise DataError(
            f"{files.weights}: the head has {classes} classes, but {files.config} has {len(characters)} characters, "
            f"which makes {len(characters) + 2} with blank and space",
            hint=f"the two files do not belong together: delete both and run ocrft models pull {files.name}",
        )
    return file, Dictionary(characters, use_space=True)


def _of_run(
    uri: str, workspace: Workspace, aside: Path, *, best_of: Callable[[Workspace], Arrays], reads: bool
) -> tuple[Path, Dictionary | None]:
    from safetensors.numpy import save_file

    other = urlsplit(uri).netloc
    runs = {path: path.name.rpartition("-")[0] for path in workspace.root.glob("[!.]*-*") if path.is_dir()}
    folders = [path for path, name in runs.items() if name == other and path != workspace.folder]
    if not folders:
        known = ", ".join(sorted({name for path, name in runs.items() if path != workspace.folder})) or "none"
        raise InputMissingError(
            f"model.pretrained: {uri}: there is no run {other!r} in {workspace.root}; runs there: {known}",
            hint="both runs must have the same workspace",
        )
    # one name may have been used several times
    source = Workspace(workspace.root, max(folders, key=lambda path: path.stat().st_mtime).name)
    dictionary = Dictionary.load(source.dictionary) if reads else None
    file = aside / f"{_WEIGHTS}.safetensors"
    save_file(dict(best_of(source)), file)
    return file, dictionary


@dataclass(frozen=True, kw_only=True)
class _Own:
    """A file of one's own, and how it and its neighbours come here."""

    uri: str
    aside: Path
    fetch: Fetch | None
    progress: Progress | None

    @property
    def is_local(self) -> bool:
        return local_path(self.uri) is not None

    def get(self, uri: str, name: str, *, attempts: int = 5) -> Path:
        """A path with the content of an address, called `name` where it has to be copied."""
        path = local_path(uri)
        if path is not None:
            return path
        target = self.aside / name
        if urlsplit(uri).scheme in ("http", "https"):
            tell = self.progress
            download(uri, target, attempts=attempts, progress=tell and (lambda at, of: tell(target.name, at, of)))
            return target
        if self.fetch is None:
            raise ConfigurationError(
                f"model.pretrained: {uri}: weights can't be read from addresses of this kind",
                hint="write a path, or an address that begins with file://, pvc://, http://, https://, s3://, gs:// or oss://",
            )
        return _placed(self.fetch(uri), self.aside, name=name)


def _own(name: str, own: _Own, *, library: Library, reads: bool) -> tuple[Path, Dictionary | None]:
    suffix = Path(unquote(urlsplit(own.uri).path)).suffix or ".pdparams"
    path = own.get(own.uri, f"{_WEIGHTS}{suffix}")
    if not path.is_file():
        raise InputMissingError(f"model.pretrained: {path}: there is no such file")
    arrays = read_weights(path)
    file = _placed(path, own.aside) if own.is_local else path
    classes = classes_of(arrays) if reads else None
    if classes is None:  # no reader, or a backbone alone: there are no characters to carry over
        return file, None
    return file, _dictionary_beside(name, own, classes=classes, library=library)


def _dictionary_beside(name: str, own: _Own, *, classes: int, library: Library) -> Dictionary:
    tried: list[str] = []
    for candidate in _neighbours(own):
        characters = (
            official_dictionary(candidate)
            if candidate.name.endswith(CONFIG)
            else Dictionary.load(candidate, use_space=False).characters
        )
        tried.append(f"{candidate} ({len(characters)} characters)")
        if fitting := _fitting(characters, classes):
            return fitting
    info = lookup(name)
    if info.dictionary_size and info.dictionary_size + 2 == classes:
        config = library.pull(name).config
        if config is not None and (fitting := _fitting(official_dictionary(config), classes)):
            return fitting
    seen = f"; looked at {', '.join(tried)}" if tried else ""
    raise DataError(
        f"model.pretrained: {own.uri}: the head has {classes} classes, and no dictionary with {classes - 2} or "
        f"{classes - 1} characters is known for it{seen}",
        hint=f"put the dictionary it was trained with beside it, as {Path(urlsplit(own.uri).path).stem}.txt",
    )


def _neighbours(own: _Own) -> Iterator[Path]:
    base = own.uri.rpartition("/")[0] if "/" in own.uri else "."
    addresses = [f"{own.uri.rpartition('.')[0]}.txt", f"{base}/{_DICTIONARY}", f"{base}/{CONFIG}"]
    for number, address in enumerate(addresses):
        try:
            path = own.get(address, f"{number}-{address.rpartition('/')[2]}", attempts=1)
        except InputMissingError:
            continue  # it need not be there
        if path.is_file():
            yield path


def _fitting(characters: tuple[str, ...], classes: int) -> Dictionary | None:
    # a file may list the space or leave it to `use_space_char`: the number of classes tells
    for use_space in (True, False):
        candidate = Dictionary(characters, use_space=use_space)
        if candidate.size + 1 == classes:
            return candidate
    return None


def _placed(file: Path, folder: Path, *, name: str = "") -> Path:
    target = folder / (name or f"{_WEIGHTS}{file.suffix}")
    try:
        os.link(file, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(file, target)
    return target


def _lay_down(result: Pretrained, aside: Path, target: Path, *, of: str) -> None:
    for path in aside.iterdir():
        if path != result.weights:
            path.unlink()
    if result.dictionary is not None:
        (aside / _DICTIONARY).write_bytes("".join(f"{c}\n" for c in result.dictionary.characters).encode())
    document = {
        "model": of,
        "file": result.weights.name,
        "source": result.source,
        "sha256": result.sha256,
        "space": None if result.dictionary is None else result.dictionary.use_space,
    }
    (aside / _SOURCE).write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    target.mkdir(exist_ok=True)
    (target / _SOURCE).unlink(missing_ok=True)  # first: half of it must never look whole
    for path in target.iterdir():
        path.unlink()
    for path in sorted(aside.iterdir(), key=lambda p: p.name == _SOURCE):
        path.replace(target / path.name)
