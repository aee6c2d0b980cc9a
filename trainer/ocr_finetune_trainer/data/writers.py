"""Writes labelled pictures in the layouts that other programs read: the way back from `data.formats`.

Pictures keep their bytes. A name that is taken gets a number, so that no picture overwrites another one.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, ClassVar

from ocr_finetune_api.exit_codes import DataError
from ocr_finetune_api.spec import SourceFormat
from ocr_finetune_trainer.data.formats.ccpd import plate_indices
from ocr_finetune_trainer.data.formats.ppocr import IGNORED_TEXTS

if TYPE_CHECKING:
    from ocr_finetune_trainer.data.records import Box

__all__ = ["WRITERS", "Labelled", "Writer"]

_LISTS = {"train": "train", "validation": "val", "test": "test", "": "list"}
_UNSAFE = re.compile(r"[\t\r\n\0/\\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """A picture with its label, ready to be written.

    Attributes:
        name: Its name in the source.
        content: Its bytes.
        width: Columns.
        height: Rows.
        text: The text of a line.
        boxes: The texts of a page; None for a line.
        split: `train`, `validation`, `test`, or empty.
    """

    name: str
    content: bytes
    width: int
    height: int
    text: str
    boxes: tuple[Box, ...] | None
    split: str


class Writer(ABC):
    """Writes one layout into a folder; `close` finishes it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._taken: set[str] = set()

    @abstractmethod
    def add(self, sample: Labelled) -> str:
        """Writes one sample; gives what is wrong with it for this layout, or nothing."""

    @abstractmethod
    def close(self) -> None:
        """Writes the labels."""

    def _picture(self, sample: Labelled, inside: str, *, stem: str = "") -> str:
        """Writes a picture under a name of its own; gives its path in the folder."""
        name = PurePosixPath(_UNSAFE.sub("_", PurePosixPath(sample.name).name))
        stem = stem or name.stem
        suffix = _suffix(sample.content, name.suffix)
        path, number = f"{inside}{stem}{suffix}", 1
        while path.casefold() in self._taken:
            number += 1
            path = f"{inside}{stem}-{number}{suffix}"
        self._taken.add(path.casefold())
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(sample.content)
        return path


def _suffix(content: bytes, given: str) -> str:
    """The suffix that a picture's bytes ask for."""
    if content[:2] == b"\xff\xd8":
        return given if given.lower() in (".jpg", ".jpeg") else ".jpg"
    if content[:8] == b"\x89PNG\r\n\x1a\n":
        return ".png"
    return given or ".bmp"


def _page(boxes: Sequence[Box]) -> str:
    values = [
        {
            "transcription": box.text if not box.ignored or box.text in IGNORED_TEXTS else "###",
            "points": [[_number(x), _number(y)] for x, y in box.points],
            "difficult": box.ignored,
        }
        for box in boxes
    ]
    return json.dumps(values, ensure_ascii=False)


def _number(value: float) -> float | int:
    return int(value) if float(value).is_integer() else round(float(value), 2)


class _Lists(Writer):
    """Lists of pictures and labels with a tab between them, one a split."""

    inside = "images/"
    names: ClassVar[dict[str, str]] = {
        split: f"{name}_list.txt" if split else "list.txt" for split, name in _LISTS.items()
    }

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._lines: dict[str, list[str]] = {}

    def add(self, sample: Labelled) -> str:
        if sample.boxes is None and re.search(r"[\t\r\n]", sample.text):
            return "its text holds a tab or a line break, which this layout can't hold"
        path = self._picture(sample, self.inside)
        label = sample.text if sample.boxes is None else _page(sample.boxes)
        self._lines.setdefault(self._list(sample, path), []).append(f"{path}\t{label}\n")
        return ""

    def _list(self, sample: Labelled, path: str) -> str:  # noqa: ARG002 - other layouts split by it
        return self.names[sample.split]

    def close(self) -> None:
        for name, lines in self._lines.items():
            (self.folder / name).write_text("".join(lines), encoding="utf-8")


class _PaddleX(_Lists):
    """`images/`, `train.txt`, `val.txt`; what has no split is split by a hash of its name."""

    names: ClassVar[dict[str, str]] = {"train": "train.txt", "validation": "val.txt", "test": "test.txt", "": ""}

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._characters: set[str] = set()

    def add(self, sample: Labelled) -> str:
        problem = super().add(sample)
        if not problem and sample.boxes is None:
            self._characters.update(sample.text)
        return problem

    def _list(self, sample: Labelled, path: str) -> str:
        if sample.split:
            return self.names[sample.split]
        return "val.txt" if hashlib.sha256(path.encode()).digest()[0] < 26 else "train.txt"

    def close(self) -> None:
        if self._lines and "val.txt" not in self._lines:
            lines = self._lines["train.txt"]
            self._lines["val.txt"] = [lines.pop()] if len(lines) > 1 else list(lines)
        super().close()
        if self._characters:
            entries = "".join(f"{character}\n" for character in sorted(self._characters - {" "}))
            (self.folder / "dict.txt").write_text(entries, encoding="utf-8")


class _PpOcrLabel(_Lists):
    """`Label.txt` and `fileState.txt` for pages, `rec_gt.txt` and `crop_img/` for lines."""

    def add(self, sample: Labelled) -> str:
        if sample.boxes is None:
            self.inside = "crop_img/"
            return super().add(sample)
        path = self._picture(sample, "")
        self._lines.setdefault("Label.txt", []).append(f"{self.folder.name}/{path}\t{_page(sample.boxes)}\n")
        self._lines.setdefault("fileState.txt", []).append(f"{path}\t1\n")
        return ""

    def _list(self, sample: Labelled, path: str) -> str:  # noqa: ARG002
        return "rec_gt.txt"


class _Icdar2015(Writer):
    """`gt_<picture>.txt` for pages, `gt.txt` for words."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._words: dict[str, list[str]] = {}

    def add(self, sample: Labelled) -> str:
        part = f"{_LISTS[sample.split]}/" if sample.split else ""
        if sample.boxes is None:
            if "\n" in sample.text:
                return "its text holds a line break, which this layout can't hold"
            path = self._picture(sample, part)
            word = f'{PurePosixPath(path).name}, "{sample.text}"\r\n'
            self._words.setdefault(part, []).append(word)
            return ""
        if any(len(box.points) != 4 for box in sample.boxes):
            return "has an outline of more or fewer than four points, which this layout can't hold"
        path = self._picture(sample, part)
        lines = []
        for box in sample.boxes:
            numbers = ",".join(str(round(value)) for point in box.points for value in point)
            lines.append(f"{numbers},{'###' if box.ignored else box.text}\r\n")
        stem = PurePosixPath(path).stem
        (self.folder / part / f"gt_{stem}.txt").write_text("".join(lines), encoding="utf-8-sig", newline="")
        return ""

    def close(self) -> None:
        for part, lines in self._words.items():
            (self.folder / part / "gt.txt").write_text("".join(lines), encoding="utf-8-sig", newline="")


class _Coco(Writer):
    """One JSON file a split."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._files: dict[str, dict[str, list[dict[str, Any]]]] = {}

    def add(self, sample: Labelled) -> str:
        if sample.boxes is None:
            return "is a line of text; this layout holds pages with boxes"
        path = self._picture(sample, "images/")
        file = self._files.setdefault(sample.split, {"images": [], "annotations": []})
        number = len(file["images"]) + 1
        file["images"].append({"id": number, "file_name": path, "width": sample.width, "height": sample.height})
        for box in sample.boxes:
            xs, ys = [x for x, _ in box.points], [y for _, y in box.points]
            file["annotations"].append(
                {
                    "id": len(file["annotations"]) + 1,
                    "image_id": number,
                    "category_id": 1,
                    "segmentation": [[value for point in box.points for value in point]],
                    "bbox": [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)],
                    "text": box.text,
                    "iscrowd": int(box.ignored),
                }
            )
        return ""

    def close(self) -> None:
        for split, values in self._files.items():
            name = f"{_LISTS[split]}.json" if split else "annotations.json"
            document = {**values, "categories": [{"id": 1, "name": "text"}]}
            (self.folder / name).write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")


class _Csv(Writer):
    """A table a split: path and text, and points where there are boxes."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._rows: dict[str, list[list[str]]] = {}

    def add(self, sample: Labelled) -> str:
        path = self._picture(sample, "images/")
        rows = self._rows.setdefault(sample.split, [])
        if sample.boxes is None:
            rows.append([path, sample.text])
            return ""
        rows.extend(
            [path, "###" if box.ignored else box.text, json.dumps([list(point) for point in box.points])]
            for box in sample.boxes
        )
        return ""

    def close(self) -> None:
        for split, rows in self._rows.items():
            name = f"{_LISTS[split]}.csv" if split else "labels.csv"
            with (self.folder / name).open("w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(["path", "text", "points"][: max(map(len, rows), default=2)])
                writer.writerows(rows)


class _CharFolders(Writer):
    """A folder a character, `samples.csv`, and `id2char.json`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._ids: dict[str, str] = {}
        self._rows: list[list[str]] = []

    def add(self, sample: Labelled) -> str:
        if sample.boxes is not None or len(sample.text) != 1:
            return "is no single character"
        number = self._ids.setdefault(sample.text, str(len(self._ids) + 1))
        path = self._picture(sample, f"characters/{number}/")
        self._rows.append([path, sample.text, number])
        return ""

    def close(self) -> None:
        table = {number: character for character, number in self._ids.items()}
        (self.folder / "id2char.json").write_text(json.dumps(table, ensure_ascii=False), encoding="utf-8")
        with (self.folder / "samples.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["path", "character", "id"])
            writer.writerows(self._rows)


class _Ccpd(Writer):
    """Plates whose labels are the file names."""

    def add(self, sample: Labelled) -> str:
        if sample.boxes is None or len(sample.boxes) != 1 or len(sample.boxes[0].points) != 4:
            return "is no page with one plate of four corners"
        box = sample.boxes[0]
        try:
            plate = plate_indices(box.text)
        except ValueError as error:
            return f"is no plate that this layout can name ({error})"
        top_left, top_right, bottom_right, bottom_left = [(round(x), round(y)) for x, y in box.points]
        xs, ys = [round(x) for x, _ in box.points], [round(y) for _, y in box.points]
        corners = "_".join(f"{x}&{y}" for x, y in (bottom_right, bottom_left, top_left, top_right))
        share = (max(xs) - min(xs)) * (max(ys) - min(ys)) / max(sample.width * sample.height, 1)
        frame = f"{min(xs)}&{min(ys)}_{max(xs)}&{max(ys)}"
        inside = f"{_LISTS[sample.split]}/" if sample.split else ""
        stem = f"{share:.6f}".removeprefix("0.") + f"-90_90-{frame}-{corners}-{plate}-0-"
        # The last field, blur, is free: it keeps apart pictures that would have the same name.
        number = 0
        while f"{inside}{stem}{number}{_suffix(sample.content, '.jpg')}".casefold() in self._taken:
            number += 1
        self._picture(sample, inside, stem=f"{stem}{number}")
        return ""

    def close(self) -> None:
        """Names are all there is."""


class _Lmdb(Writer):
    """PaddleOCR's LMDB of lines."""

    def __init__(self, folder: Path) -> None:
        import lmdb

        super().__init__(folder)
        # A map is an address range, not space on the disk.
        self._environment = lmdb.open(str(folder), map_size=1 << 40, lock=False)
        self._count = 0

    def add(self, sample: Labelled) -> str:
        if sample.boxes is not None:
            return "is a page; this layout holds lines of text"
        self._count += 1
        with self._environment.begin(write=True) as transaction:
            transaction.put(f"image-{self._count:09d}".encode(), sample.content)
            transaction.put(f"label-{self._count:09d}".encode(), sample.text.encode())
        return ""

    def close(self) -> None:
        with self._environment.begin(write=True) as transaction:
            transaction.put(b"num-samples", str(self._count).encode())
        self._environment.sync(True)
        self._environment.close()


WRITERS: dict[SourceFormat, type[Writer]] = {
    SourceFormat.PPOCR: _Lists,
    SourceFormat.PPOCRLABEL: _PpOcrLabel,
    SourceFormat.PADDLEX: _PaddleX,
    SourceFormat.ICDAR2015: _Icdar2015,
    SourceFormat.COCO: _Coco,
    SourceFormat.CSV: _Csv,
    SourceFormat.CHAR_FOLDERS: _CharFolders,
    SourceFormat.CCPD: _Ccpd,
    SourceFormat.LMDB: _Lmdb,
}


def writer(name: SourceFormat, folder: Path) -> Writer:
    """The writer of a layout.

    Raises:
        DataError: No writer has this name.
    """
    if name not in WRITERS:
        raise DataError(f"--to {name.value}: can be written are {', '.join(known.value for known in WRITERS)}")
    return WRITERS[name](folder)
