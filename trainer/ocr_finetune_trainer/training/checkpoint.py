"""Checkpoints: what one is, how it is written so that a crash can't damage the last good one, and how it is found again.

A checkpoint is a folder of safetensors files and a manifest with their checksums, written aside, synced and renamed. Its
name carries step, attempt and execution. No Paddle here: evaluation, export and tools read checkpoints too.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from ocr_finetune_api.exit_codes import InputMissingError, StopRequested
from ocr_finetune_api.spec import ApiModel
from ocr_finetune_api.workspace import Workspace

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[Any]]

__all__ = [
    "SCHEMA_VERSION",
    "Checkpoint",
    "Damage",
    "Fence",
    "Manifest",
    "Progress",
    "clean",
    "find",
    "load_best",
    "load_latest",
    "prune",
    "save",
]

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
MODEL, EMA, OPTIMIZER, RANKS = "model", "ema", "optimizer", "ranks"
LOWER_IS_BETTER = frozenset({"characterErrorRate", "wordErrorRate"})

_NAME = re.compile(r"^(\d+)\.a(\d+)\.x([0-9a-zA-Z]+)$")
_OS_ERROR = re.compile(r"os error (\d+)")


class Progress(ApiModel):
    """How far training has come: with the arrays, all that continues a run.

    The order of samples, the random numbers and the learning rate are functions of the step, so they need no place here.

    Attributes:
        step: Steps trained.
        steps: Steps planned.
        epoch: Epochs begun, counted from 0.
        steps_per_epoch: Steps of an epoch.
        samples: Samples trained.
        seconds: Time spent training, over all attempts.
        best_metric: The best value of the metric that chooses, None before the first evaluation.
        best_step: Where it was reached.
        base_metric: The value before the first step.
        stale_evaluations: Evaluations since an improvement that counts.
        stale_reference: The value that an improvement is measured against.
        rate_factor: Factor of the learning rate; below 1 after training had to go back.
        rollbacks: How often training went back.
        loss_scale: Loss scaling of fp16.
        good_steps: Steps since the loss scale changed.
        extended_from: Where training was first planned to end, if epochs were added; 0 if none were.
        evaluated_step: Where it was evaluated last; -1 before the first time.
        ended: Why training ended before its last step; empty if it did not.
    """

    step: int = 0
    steps: int = 0
    epoch: int = 0
    steps_per_epoch: int = 0
    samples: int = 0
    seconds: float = 0.0
    best_metric: float | None = None
    best_step: int = 0
    base_metric: float | None = None
    stale_evaluations: int = 0
    stale_reference: float | None = None
    rate_factor: float = 1.0
    rollbacks: int = 0
    loss_scale: float = 1.0
    good_steps: int = 0
    extended_from: int = 0
    evaluated_step: int = -1
    ended: str = ""


class File(ApiModel):
    """A file of a checkpoint."""

    bytes: int
    sha256: str


class Manifest(ApiModel):
    """What a checkpoint holds.

    Attributes:
        schema_version: Version of this layout.
        step: Steps trained.
        attempt: The attempt that wrote it.
        execution: The execution of that attempt.
        metric_name: What chooses the best checkpoint.
        metric: Its value with exactly these weights; None if it was not measured here.
        world: Processes that trained.
        progress: How far training has come.
        identity: What must be equal to go on from here, by the path of its field in the manifest.
        settings: What was chosen when training began.
        files: The files, by name.
        written_at: Seconds since the epoch.
    """

    schema_version: int = SCHEMA_VERSION
    step: int
    attempt: int = 1
    execution: str = ""
    metric_name: str = ""
    metric: float | None = None
    world: int = 1
    progress: Progress = Field(default_factory=Progress)
    identity: dict[str, Any] = Field(default_factory=dict)
    settings: dict[str, Any] = Field(default_factory=dict)
    files: dict[str, File] = Field(default_factory=dict)
    written_at: float = 0.0


@dataclass(frozen=True)
class Damage:
    """A folder that looks like a checkpoint and can't be used.

    Attributes:
        path: The folder.
        reason: Why, in one clause.
        newer: Whether it is whole, but of a version that this one does not know.
    """

    path: Path
    reason: str
    newer: bool = False

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk.

    Attributes:
        path: Its folder.
        manifest: What it holds.
    """

    path: Path
    manifest: Manifest

    @property
    def step(self) -> int:
        """Steps trained."""
        return self.manifest.step

    def arrays(self, name: str) -> dict[str, NDArray[Any]]:
        """The arrays of one of its files, such as `model`; empty if it has no such file."""
        if f"{name}.safetensors" not in self.manifest.files:
            return {}
        return dict(load_file(self.path / f"{name}.safetensors"))

    def weights(self) -> dict[str, NDArray[Any]]:
        """Parameters and buffers by structured name, as they are to be used: the moving average where there is one."""
        return self.arrays(EMA) or self.arrays(MODEL)

    def damage(self) -> Damage | None:
        """What is wrong with its files, None if they are as they were written."""
        for name, file in self.manifest.files.items():
            path = self.path / name
            try:
                size = path.stat().st_size
                if size != file.bytes:
                    return Damage(self.path, f"{name} has {size} bytes instead of {file.bytes}")
                if _sha256(path) != file.sha256:
                    return Damage(self.path, f"{name} is not what was written: its checksum differs")
            except OSError as error:
                return Damage(self.path, f"{name} can't be read: {error.strerror}")
        return None


class Fence:
    """Who may write checkpoints of a run: the last attempt that said so. An older one that wakes up stops.

    Attributes:
        attempt: Number of this attempt.
        execution: This execution of it.
    """

    def __init__(self, path: Path, *, attempt: int, execution: str) -> None:
        self._path = path
        self.attempt = attempt
        self.execution = execution

    def claim(self) -> None:
        """Takes the run over from older attempts.

        Raises:
            StopRequested: A newer attempt has it.
        """
        holder = self._read()
        if holder is not None and holder[0] > self.attempt:
            raise self._lost(holder)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        for left in self._path.parent.glob(f".{self._path.name}.*"):
            left.unlink(missing_ok=True)  # by a process that was killed here
        aside = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            with aside.open("w", encoding="utf-8") as file:
                json.dump({"attempt": self.attempt, "execution": self.execution}, file)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(self._path)
        finally:
            aside.unlink(missing_ok=True)

    def check(self) -> None:
        """Makes sure that nobody took the run over.

        Raises:
            StopRequested: Another attempt or execution has it.
        """
        holder = self._read()
        if holder is not None and holder != (self.attempt, self.execution):
            raise self._lost(holder)

    def _read(self) -> tuple[int, str] | None:
        try:
            values = json.loads(self._path.read_text(encoding="utf-8"))
            return int(values["attempt"]), str(values["execution"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _lost(self, holder: tuple[int, str]) -> StopRequested:
        return StopRequested(
            f"{self._path.parent}: attempt {holder[0]} (execution {holder[1]}) has taken this run over from "
            f"attempt {self.attempt} (execution {self.execution}); nothing more is written here"
        )


def save(folder: Path, manifest: Manifest, files: Mapping[str, Arrays], *, fence: Fence | None = None) -> Checkpoint:
    """Writes a checkpoint whole or not at all.

    Args:
        folder: The run's folder of checkpoints.
        manifest: What it holds; `files` is filled in here.
        files: The arrays by file name without suffix; empty ones are left out.
        fence: Asked right before the checkpoint becomes visible.

    Raises:
        OSError: It can't be written; nothing is left behind.
        StopRequested: Another attempt has taken the run over.
    """
    name = f"{manifest.step:08d}.a{manifest.attempt}.x{manifest.execution or '0'}"
    aside = folder / f".{name}.{os.getpid()}"
    try:
        aside.mkdir(parents=True, exist_ok=True)
        records = {
            f"{key}.safetensors": _write(aside / f"{key}.safetensors", arrays)
            for key, arrays in files.items()
            if arrays
        }
        whole = manifest.model_copy(update={"files": records})
        with (aside / MANIFEST).open("w", encoding="utf-8") as file:
            file.write(whole.model_dump_json(by_alias=True, indent=1))
            file.flush()
            os.fsync(file.fileno())
        _sync_folder(aside)
        if fence is not None:
            fence.check()
        _move_into_place(aside, folder / name)
        _sync_folder(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return Checkpoint(folder / name, whole)


def find(folder: Path) -> tuple[list[Checkpoint], list[Damage]]:
    """All checkpoints of a folder, newest first, and what looks like one but can't be read.

    Checksums are not compared here: `Checkpoint.damage` does that.
    """
    found: list[Checkpoint] = []
    damaged: list[Damage] = []
    for path in folder.iterdir() if folder.is_dir() else ():
        if not _NAME.match(path.name):
            continue
        manifest = _read_manifest(path)
        if isinstance(manifest, Damage):
            damaged.append(manifest)
        else:
            found.append(Checkpoint(path, manifest))
    found.sort(key=lambda item: (item.step, item.manifest.attempt, item.manifest.written_at), reverse=True)
    return found, damaged


def load_latest(workspace: Workspace, *, report: Callable[[Damage], None] | None = None) -> Checkpoint | None:
    """The newest checkpoint that is whole, None if there is none.

    Args:
        workspace: The run's files.
        report: Told about each damaged one that was skipped.
    """
    return _first_whole(*find(workspace.checkpoints), report=report)


def load_best(workspace: Workspace, *, report: Callable[[Damage], None] | None = None) -> Checkpoint:
    """The checkpoint with the best metric that is whole; the newest, if none was measured.

    Args:
        workspace: The run's files.
        report: Told about each damaged one that was skipped.

    Raises:
        InputMissingError: There is none.
    """
    found, damaged = find(workspace.checkpoints)
    best = _first_whole(sorted(found, key=_merit, reverse=True), damaged, report=report)
    if best is None:
        raise InputMissingError(
            f"{workspace.checkpoints}: there is no usable checkpoint",
            *(str(item) for item in damaged),
            hint="run the train stage first",
        )
    return best


def prune(folder: Path, *, keep_last: int, keep: Sequence[int] = ()) -> None:
    """Removes checkpoints other than the best and the newest.

    Args:
        folder: The run's folder of checkpoints.
        keep_last: How many of the newest stay.
        keep: Steps that stay as well.
    """
    found, _ = find(folder)
    measured = [item for item in found if item.manifest.metric is not None]
    staying = {item.path for item in found[:keep_last]} | {item.path for item in found if item.step in keep}
    if measured:
        staying.add(max(measured, key=_merit).path)
    for item in found:
        if item.path not in staying:
            remove(item.path)


def remove(path: Path) -> None:
    """Removes a checkpoint: first its name, so that half of it is never taken for a whole one."""
    grave = path.with_name(f".removed.{path.name}.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        path.rename(grave)
    shutil.rmtree(grave, ignore_errors=True)


def clean(folder: Path) -> None:
    """Removes what killed processes left half-written; call it only while nobody else writes."""
    for path in folder.glob(".*") if folder.is_dir() else ():
        shutil.rmtree(path, ignore_errors=True)


def is_better(metric: float, than: float | None, *, name: str, by: float = 0.0) -> bool:
    """Whether a value of a metric is better than another one by more than `by`; anything is better than None."""
    if than is None:
        return True
    return metric < than - by if name in LOWER_IS_BETTER else metric > than + by


def _merit(item: Checkpoint) -> tuple[bool, float, int]:
    metric = item.manifest.metric
    if metric is None:
        return False, 0.0, item.step
    return True, -metric if item.manifest.metric_name in LOWER_IS_BETTER else metric, item.step


def _first_whole(
    found: Sequence[Checkpoint], damaged: Sequence[Damage], *, report: Callable[[Damage], None] | None
) -> Checkpoint | None:
    tell = report or (lambda _damage: None)
    for damage in damaged:
        tell(damage)
    for item in found:
        wrong = item.damage()
        if wrong is None:
            return item
        tell(wrong)
    return None


def _read_manifest(path: Path) -> Manifest | Damage:
    try:
        values = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        version = values.get("schemaVersion") if isinstance(values, dict) else None
        if isinstance(version, int) and version > SCHEMA_VERSION:
            return Damage(
                path,
                f"was written by a newer version (schemaVersion {version}, known here is {SCHEMA_VERSION})",
                newer=True,
            )
        return Manifest.model_validate(values)
    except OSError as error:
        return Damage(path, f"{MANIFEST} can't be read: {error.strerror}")
    except (json.JSONDecodeError, ValidationError, UnicodeDecodeError):
        return Damage(path, f"{MANIFEST} is broken")


def _write(path: Path, arrays: Arrays) -> File:
    try:
        save_file(dict(arrays), path)
    except SafetensorError as error:
        number = _OS_ERROR.search(str(error))
        code = int(number.group(1)) if number else errno.EIO
        raise OSError(code, os.strerror(code) if number else str(error), str(path)) from error
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return File(bytes=path.stat().st_size, sha256=_sha256(path))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _move_into_place(aside: Path, target: Path) -> None:
    """Renames a folder; one of the same step that stands there already makes room first."""
    if target.exists():
        remove(target)
    aside.rename(target)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
