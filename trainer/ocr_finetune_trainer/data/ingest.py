"""From a source to shards: every picture is opened once, by as many processes as there are cores.

Records are taken in runs of a fixed length. A run becomes one shard under the hash of its records (names, sizes, times
and labels), so a shard that exists is not made again: after a kill, for the next run, or when samples were appended.
"""

from __future__ import annotations

import hashlib
import marshal
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from xxhash import xxh3_64_intdigest

from ocr_finetune_api.exit_codes import DataError, ExitCode, OCRFineTuneError
from ocr_finetune_trainer.data import pictures, store
from ocr_finetune_trainer.data.crops import cut
from ocr_finetune_trainer.data.crossing import crosses_itself, goes_around
from ocr_finetune_trainer.data.files import Files
from ocr_finetune_trainer.data.picture_processes import PictureProcesses
from ocr_finetune_trainer.data.pictures import Picture, PictureError
from ocr_finetune_trainer.data.records import Box, Point, Problem, Record
from ocr_finetune_trainer.data.store import Shard

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["RECORDS_A_SHARD", "Ingested", "ingest"]

RECORDS_A_SHARD = 2048  # few enough that some ten thousand keep many cores busy
BYTES_A_SHARD = 128 << 20
_TOLD_EVERY = 64  # records
_VERSION = 5  # of what a shard holds for a given record; raise it when that changes
_LEAST_DOUBLED_AREA = 2.0  # square pixels
_ROUNDING = 2.0  # pixels that a box may reach beyond its picture without a word: tools round


@dataclass(frozen=True, kw_only=True)
class Ingested:
    """What came of a source.

    Attributes:
        shards: Its shards, in the order of its records.
        problems: Everything that is wrong with it.
        records: How many samples its labels speak of.
        reused: How many shards were there already.
    """

    shards: list[Shard]
    problems: list[Problem]
    records: int
    reused: int


@dataclass(slots=True)
class _Run:
    """Records that become one shard."""

    records: list[Record] = field(default_factory=list)
    size: int = 0

    def is_full(self) -> bool:
        return len(self.records) >= RECORDS_A_SHARD or self.size >= BYTES_A_SHARD


@dataclass(slots=True)
class _State:
    """What has come of the records so far."""

    shards: list[Shard] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    records: int = 0
    reused: int = 0

    def add(self, summary: dict[str, Any]) -> None:
        """Takes in what is known of a shard."""
        if summary["rows"]:
            self.shards.append(Shard(name=summary["name"], size=summary["size"]))
        self.problems.extend(Problem(**values) for values in summary["problems"])
        self.records += summary["extra"]
        self.reused += summary["reused"]


def ingest(
    files: Files,
    found: Iterator[Record | Problem],
    *,
    folder: Path,
    crop: bool,
    processes: PictureProcesses | None = None,
    done: Callable[[int], None] = lambda _: None,
) -> Ingested:
    """Makes shards of all records.

    Args:
        files: The files of the source.
        found: What its layout reads.
        folder: The cache's folder of shards.
        crop: Whether texts are cut out of pages.
        processes: Those that open pictures; without any, or for a source of one shard, this one does.
        done: Told how many records have been dealt with, as they are.

    Raises:
        OSError: The cache can't be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = _State()
    make = partial(_shard, files, folder=folder, crop=crop)
    runs = _runs(found, state)
    first = list(islice(runs, 2))
    if processes is None or processes.count <= 1 or len(first) < 2:
        for run in chain(first, runs):
            state.add(make(run.records, done=done))
    else:
        _in_parallel(make, chain(first, runs), processes=processes, state=state, done=done)
    return Ingested(shards=state.shards, problems=state.problems, records=state.records, reused=state.reused)


def _runs(found: Iterator[Record | Problem], state: _State) -> Iterator[_Run]:
    run = _Run()
    for item in found:
        if isinstance(item, Problem):
            state.problems.append(item)
            state.records += item.samples
            continue
        state.records += 1
        run.records.append(item)
        run.size += item.member.size
        if run.is_full():
            yield run
            run = _Run()
    if run.records:
        yield run


def _in_parallel(
    make: Callable[..., dict[str, Any]],
    runs: Iterator[_Run],
    *,
    processes: PictureProcesses,
    state: _State,
    done: Callable[[int], None],
) -> None:
    waiting: deque[tuple[int, Future[dict[str, Any]]]] = deque()

    def finish() -> None:
        size, future = waiting.popleft()
        state.add(future.result())
        done(size)

    try:
        for run in runs:
            waiting.append((len(run.records), processes.submit(make, run.records)))
            while len(waiting) > processes.count + 2:
                finish()
        while waiting:
            finish()
    except BrokenProcessPool as error:
        raise OCRFineTuneError(
            "a process that opens pictures was killed, most likely because memory ran out",
            hint="give prepare more memory, or set OCRFT_PREPARE_WORKERS=1; what was finished is kept",
            exit_code=ExitCode.STORAGE,
        ) from error
    finally:
        for _, future in waiting:
            future.cancel()


def _key(files: Files, records: Sequence[Record], *, crop: bool) -> str:
    identity = hashlib.sha256(f"{_VERSION}\0{store.FORMAT}\0{crop}\0{getattr(files, 'root', '')}\0".encode())
    identity.update(str(getattr(files, "path", "")).encode())
    values = [
        (
            *record.member[:3],
            record.place,
            record.text,
            record.group,
            record.split,
            None if record.boxes is None else [tuple(box) for box in record.boxes],
        )
        for record in records
    ]
    # Of version 2, because later ones write down which of the values are the same object, which is chance.
    identity.update(marshal.dumps(values, 2))
    return identity.hexdigest()[:32]


def _shard(
    files: Files, records: list[Record], *, folder: Path, crop: bool, done: Callable[[int], None] = lambda _: None
) -> dict[str, Any]:
    """Makes one shard, or finds it made; gives what is known of it as plain values, to travel between processes."""
    name = _key(files, records, crop=crop)
    made = _made(folder, name)
    if made is not None:
        done(len(records))
        return {**made, "reused": 1}
    rows: list[dict[str, Any]] = []
    index: list[dict[str, Any]] = []
    thumbnails: list[NDArray[np.uint8]] = []
    problems: list[Problem] = []
    extra = 0
    for number, record in enumerate(records, start=1):
        if number % _TOLD_EVERY == 0 or number == len(records):
            done((number - 1) % _TOLD_EVERY + 1)
        try:
            parts = _samples(files, record, crop=crop, problems=problems)
        except PictureError as error:
            problems.append(
                Problem(kind=error.kind, place=record.place, what=f"{record.member.name}: {error}", hint=error.hint)
            )
            continue
        extra += len(parts) - 1
        for picture, text, boxes in parts:
            rows.append(_row(picture, boxes))
            index.append(_index_row(record, picture, text, boxes))
            thumbnails.append(picture.thumbnail)
    _add_looks(index, thumbnails)
    about = {"rows": len(rows), "problems": [problem.to_json() for problem in problems], "extra": extra}
    shard = store.write_shard(folder, name, pictures=rows, index=index, about=about)
    return {"name": name, "size": shard.size, "reused": 0, **about}


def _made(folder: Path, name: str) -> dict[str, Any] | None:
    file = folder / f"{name}.index.arrow"
    if not file.exists():
        return None
    try:
        _, about = store.read_table(file)
        if (folder / f"{name}.arrow").stat().st_size != about["size"]:
            return None
    except (OSError, KeyError, DataError):
        return None
    return {"name": name, **about}


_Part = tuple[Picture, str, tuple[Box, ...] | None]


def _samples(files: Files, record: Record, *, crop: bool, problems: list[Problem]) -> list[_Part]:
    try:
        content = files.read(record.member)
    except OSError as error:
        raise PictureError("unreadable-picture", f"can't be read ({error.strerror or error})") from error
    if record.boxes is None:
        return [(pictures.inspect(content), record.text, None)]
    if crop:
        page = pictures.open_page(content)
        boxes = _checked(record, page.shape[1], page.shape[0], problems)
        return _cut_out(page, boxes, record, problems, lossless=content[:2] != b"\xff\xd8")
    picture = pictures.inspect(content)
    return [(picture, record.text, _checked(record, picture.width, picture.height, problems))]


def _checked(record: Record, width: int, height: int, problems: list[Problem]) -> tuple[Box, ...]:
    """The boxes of a page; those that nothing can be learnt from are ignored, and named."""
    checked = []
    for number, box in enumerate(record.boxes or (), start=1):
        if not box.points:  # a table's cell whose place is unknown
            checked.append(box)
            continue
        if _is_plain(box, width, height):
            checked.append(box)
            continue
        if not all(math.isfinite(x) and math.isfinite(y) for x, y in box.points):
            raise PictureError("bad-box", f"box {number} has corners that are not finite numbers", "draw it again")
        useless = "" if box.ignored else _useless(box, width, height)
        if useless:
            what = f"box {number} of {record.member.name} {useless}, and is ignored"
            problems.append(Problem(kind="bad-box", place=record.place, what=what, hint="draw it again", samples=0))
        elif not box.ignored and (beyond := _beyond(box, width, height)) > _ROUNDING:
            what = (
                f"box {number} of {record.member.name} reaches {beyond:.0f} pixels beyond the picture, and is cut there"
            )
            problems.append(Problem(kind="bad-box", place=record.place, what=what, hint="draw it again", samples=0))
        checked.append(box._replace(ignored=True) if useless else box)
    return tuple(checked)


def _is_plain(box: Box, width: int, height: int) -> bool:
    """Whether a box is as most are: four corners inside the picture, around an area. Quicker than asking for its faults."""
    points = box.points
    for x, y in points:
        if not (0 <= x <= width and 0 <= y <= height):  # nor is NaN inside
            return False
    return goes_around(points) and _doubled_area(points) >= _LEAST_DOUBLED_AREA


def _doubled_area(points: Sequence[Point]) -> float:
    if len(points) == 4:
        (ax, ay), (bx, by), (cx, cy), (dx, dy) = points
        return abs((cx - ax) * (dy - by) - (cy - ay) * (dx - bx))  # its diagonals
    following = (*points[1:], points[0])
    return abs(sum([x * v - u * y for (x, y), (u, v) in zip(points, following, strict=True)]))


def _beyond(box: Box, width: int, height: int) -> float:
    """How many pixels a box reaches beyond the picture."""
    xs, ys = zip(*box.points, strict=True)
    return float(max(-min(xs), -min(ys), max(xs) - width, max(ys) - height))


def _useless(box: Box, width: int, height: int) -> str:
    if len(box.points) == 3:
        return "has three corners, and a text has at least four"
    xs, ys = zip(*box.points, strict=True)
    if max(xs) <= 0 or max(ys) <= 0 or min(xs) >= width or min(ys) >= height:
        return "lies outside the picture"
    if crosses_itself(box.points):
        return "crosses itself"
    return "has no area" if _doubled_area(box.points) < _LEAST_DOUBLED_AREA else ""


def _cut_out(
    page: NDArray[np.uint8], boxes: Sequence[Box], record: Record, problems: list[Problem], *, lossless: bool
) -> list[_Part]:
    parts: list[_Part] = []
    for number, box in enumerate(boxes, start=1):
        if box.ignored:
            continue
        line = cut(page, box.points)
        if line is None:
            problems.append(
                Problem(
                    kind="bad-box",
                    place=record.place,
                    what=f"box {number} of {record.member.name} has no area",
                    hint="draw it again",
                )
            )
            continue
        parts.append((pictures.describe(line, pictures.encode(line, lossless=lossless)), box.text, None))
    return parts


def _row(picture: Picture, boxes: tuple[Box, ...] | None) -> dict[str, Any]:
    if boxes is None:
        return {"image": picture.content, "points": None, "texts": None, "ignored": None}
    return {
        "image": picture.content,
        "points": [[coordinate for point in box.points for coordinate in point] for box in boxes],
        "texts": [box.text for box in boxes],
        "ignored": [box.ignored for box in boxes],
    }


def _add_looks(index: Sequence[dict[str, Any]], thumbnails: Sequence[NDArray[np.uint8]]) -> None:
    cells, contrast, brightness = pictures.looks(thumbnails)
    for number, row in enumerate(index):
        row["cells"] = cells[number].tobytes()
    for name, values in (("contrast", contrast), ("brightness", brightness)):
        for row, value in zip(index, values.tolist(), strict=True):
            row[name] = value


def _index_row(record: Record, picture: Picture, text: str, boxes: tuple[Box, ...] | None) -> dict[str, Any]:
    return {
        "text": text,
        "width": picture.width,
        "height": picture.height,
        "boxes": -1 if boxes is None else len(boxes),
        "group": record.group or (record.member.name if record.boxes is not None else ""),
        "split": record.split,
        "path": record.member.name,
        "place": record.place,
        "converted": picture.converted,
        "bytes": len(picture.content),
        "digest": xxh3_64_intdigest(picture.content),
    }
