"""From one layout to another."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ocr_finetune_api.exit_codes import DataError, OutputError
from ocr_finetune_api.model_table import Kind
from ocr_finetune_api.spec import Source, SourceFormat
from ocr_finetune_trainer.data import formats, pictures
from ocr_finetune_trainer.data.crops import cut
from ocr_finetune_trainer.data.pictures import PictureError
from ocr_finetune_trainer.data.records import Problem, Record
from ocr_finetune_trainer.data.writers import Labelled, Writer, writer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ocr_finetune_trainer.data.files import Files
    from ocr_finetune_trainer.data.sources import Opener

__all__ = ["Converted", "convert"]


@dataclass(kw_only=True)
class Converted:
    """What a conversion did.

    Attributes:
        format: The layout that was read.
        reason: What showed that it was this one.
        written: Samples written.
        problems: Everything that could not be.
    """

    format: str
    reason: str
    written: int = 0
    problems: list[Problem] = field(default_factory=list)


def convert(
    source: Source,
    target: Path,
    *,
    to: SourceFormat,
    opener: Opener,
    crops: bool = False,
    done: Callable[[int], None] = lambda _: None,
) -> Converted:
    """Writes a source in another layout.

    Args:
        source: What to read.
        target: A folder that doesn't exist yet, or is empty; it appears when it is whole.
        to: The layout to write.
        opener: Opens the source.
        crops: Cut texts out of pages and write lines.
        done: Told how many samples have been dealt with, as they are.

    Raises:
        OutputError: The folder holds something, or can't be written.
        DataError: Nothing could be converted; all problems are listed.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise OutputError(f"{target}: exists already", hint="name a folder that doesn't")
    opened = opener.open(source)
    prefix = (source.path_prefix.from_, source.path_prefix.to) if source.path_prefix else None
    request = formats.Request(
        files=opened.files,
        kind=Kind.RECOGNITION,
        list_file=opened.list_file,
        columns=source.columns,
        include_unconfirmed=source.include_unconfirmed,
        prefix=prefix,
    )
    recognised = (
        formats.recognise(request)
        if source.format is SourceFormat.AUTO
        else formats.Recognised(format=source.format, reason="said so")
    )
    result = Converted(format=recognised.format.value, reason=recognised.reason)
    aside = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    try:
        aside.mkdir(parents=True)
        out = writer(to, aside)
        for item in formats.layout(recognised.format).read(request):
            done(1)
            if isinstance(item, Problem):
                result.problems.append(item)
            else:
                _write(opened.files, item, out, result, crops=crops)
        out.close()
        if not result.written:
            lines = [str(problem) for problem in result.problems[:20]] or [f"{source.uri}: holds no labelled picture"]
            raise DataError(*lines, hint="nothing was written")
        if target.exists():
            target.rmdir()
        aside.rename(target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return result


def _write(files: Files, record: Record, out: Writer, result: Converted, *, crops: bool) -> None:
    try:
        samples = list(_labelled(files, record, crops=crops))
    except (PictureError, OSError) as error:
        kind = error.kind if isinstance(error, PictureError) else "unreadable-picture"
        what = f"{record.member.name}: {error}"
        result.problems.append(Problem(kind=kind, place=record.place, what=what))
        return
    for sample in samples:
        problem = out.add(sample)
        if problem:
            result.problems.append(
                Problem(kind="unwritable", place=record.place, what=f"{record.member.name} {problem}")
            )
        else:
            result.written += 1


def _labelled(files: Files, record: Record, *, crops: bool) -> Iterator[Labelled]:
    content = files.read(record.member)
    picture = pictures.inspect(content)
    if record.boxes is None or not crops:
        # What OpenCV would show differently has been converted; anything else keeps its own bytes.
        yield Labelled(
            name=record.member.name, content=picture.content, width=picture.width, height=picture.height,
            text=record.text, boxes=record.boxes, split=record.split,
        )  # fmt: skip
        return
    page = pictures.decode(picture.content)
    stem = record.member.name.rpartition(".")[0] or record.member.name
    for number, box in enumerate(record.boxes):
        line = None if box.ignored else cut(page, box.points)
        if line is None:
            continue
        encoded = pictures.encode(line, lossless=picture.content[:2] != b"\xff\xd8")
        yield Labelled(
            name=f"{stem}_crop_{number}", content=encoded, width=line.shape[1], height=line.shape[0], text=box.text,
            boxes=None, split=record.split,
        )  # fmt: skip
