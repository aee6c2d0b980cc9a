"""The workspace's cache of prepared data: what lies in it, who uses it, and what can go."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ocr_finetune_trainer.data.preparation import SHARDS
from ocr_finetune_trainer.data.sources import DOWNLOADS
from ocr_finetune_trainer.data.store import DESCRIPTION, INDEX

__all__ = ["Entry", "entries", "prune"]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One thing in the cache.

    Attributes:
        kind: `shard` or `download`.
        name: Its name; the address of a download.
        path: Where it lies.
        size: Bytes.
        changed: Seconds since the epoch.
        used_by: Runs whose data sets lie in it; a download is not needed once it has been prepared.
    """

    kind: str
    name: str
    path: Path
    size: int
    changed: float
    used_by: tuple[str, ...]


def entries(root: Path) -> list[Entry]:
    """Everything in the cache of a workspace.

    Args:
        root: The workspace.
    """
    users = _users(root)
    found = [_shard(index, users) for index in sorted((root / ".cache" / SHARDS).glob(f"*.{INDEX}"))]
    folders = sorted(path for path in (root / ".cache" / DOWNLOADS).glob("*") if path.is_dir())
    return found + [_download(folder) for folder in folders]


def _shard(index: Path, users: Mapping[str, set[str]]) -> Entry:
    name = index.name.removesuffix(f".{INDEX}")
    pictures = index.with_name(f"{name}.arrow")
    size = sum(path.stat().st_size for path in (index, pictures) if path.exists())
    used_by = tuple(sorted(users.get(name, ())))
    return Entry(kind="shard", name=name, path=index, size=size, changed=index.stat().st_mtime, used_by=used_by)


def _download(folder: Path) -> Entry:
    size = sum(_sizes(folder))
    changed = folder.stat().st_mtime
    return Entry(kind="download", name=_address(folder), path=folder, size=size, changed=changed, used_by=())


def _users(root: Path) -> dict[str, set[str]]:
    users: dict[str, set[str]] = {}
    for description in root.glob(f"*/data/*/{DESCRIPTION}"):
        try:
            shards = json.loads(description.read_text(encoding="utf-8"))["shards"]
        except (OSError, json.JSONDecodeError, KeyError):
            continue
        for name, _ in shards:
            users.setdefault(name, set()).add(description.parents[2].name)
    return users


def _address(folder: Path) -> str:
    try:
        return str(json.loads((folder / "source.json").read_text(encoding="utf-8"))["uri"])
    except (OSError, json.JSONDecodeError, KeyError):
        return folder.name


def _sizes(folder: Path) -> Iterator[int]:
    for path in folder.rglob("*"):
        if path.is_file():
            yield path.stat().st_size


def prune(root: Path, *, older_than: float, dry_run: bool = False) -> list[Entry]:
    """Removes what no run uses, and what is left of broken writes.

    Args:
        root: The workspace.
        older_than: Seconds; what changed later stays, since a run may be preparing it.
        dry_run: Only say what would go.

    Returns:
        What went.
    """
    limit = time.time() - older_than
    gone = [entry for entry in entries(root) if not entry.used_by and entry.changed < limit]
    if dry_run:
        return gone
    for entry in gone:
        if entry.kind == "download":
            shutil.rmtree(entry.path, ignore_errors=True)
        else:
            # The index first: without it the pictures count as never written.
            entry.path.unlink(missing_ok=True)
            entry.path.with_name(f"{entry.name}.arrow").unlink(missing_ok=True)
    for left in (root / ".cache" / SHARDS).glob(".*.arrow.*"):
        if left.stat().st_mtime < limit:
            left.unlink(missing_ok=True)
    return gone
