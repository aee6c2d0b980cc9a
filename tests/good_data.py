"""Small data sets without a mistake, in every layout, to be broken afterwards."""

from __future__ import annotations

import csv
import io
import json
import tarfile
import zipfile
from pathlib import Path

import cv2
import numpy as np

WORDS = ("alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "india", "juliett", "kilo", "lima")
SQUARE = [[10, 10], [60, 10], [60, 40], [10, 40]]


def picture(seed: int, *, height: int = 32, width: int = 96, text: str = "") -> np.ndarray:
    """A picture like no other: noise of its own on paper, with a text."""
    rng = np.random.default_rng(seed)
    paper = rng.integers(150, 250, size=(max(height // 8, 1), max(width // 8, 1), 3), dtype=np.uint8)
    page = cv2.resize(paper, (width, height), interpolation=cv2.INTER_CUBIC)
    cv2.putText(page, text, (2, max(height - 9, 1)), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (20, 20, 20), 1)
    return page


def save(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    done, content = cv2.imencode(path.suffix, image)
    assert done
    path.write_bytes(content.tobytes())
    return path


def lines(folder: Path, *, count: int = 12, name: str = "train.txt") -> Path:
    """PaddleOCR's list of lines."""
    rows = []
    for number in range(count):
        word = WORDS[number % len(WORDS)]
        save(folder / "images" / f"{number}.png", picture(number, text=word))
        rows.append(f"images/{number}.png\t{word}")
    (folder / name).write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


def box(text: str = "word", points: object = None, **more: object) -> dict[str, object]:
    return {"transcription": text, "points": SQUARE if points is None else points, **more}


def pages(folder: Path, *, count: int = 6, name: str = "label.txt") -> Path:
    """PaddleOCR's list of pages."""
    rows = []
    for number in range(count):
        save(folder / "pages" / f"{number}.png", picture(100 + number, height=120, width=160))
        rows.append(f"pages/{number}.png\t{json.dumps([box(WORDS[number])])}")
    (folder / name).write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


def paddlex_lines(folder: Path) -> Path:
    """PaddleX's `text_rec`: two lists, and the dictionary of both."""
    lines(folder)
    rows = (folder / "train.txt").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "train.txt").write_text("".join(rows[:9]), encoding="utf-8")
    (folder / "val.txt").write_text("".join(rows[9:]), encoding="utf-8")
    characters = sorted(set("".join(WORDS)))
    (folder / "dict.txt").write_text("".join(f"{character}\n" for character in characters), encoding="utf-8")
    return folder


def paddlex_pages(folder: Path, *, count: int = 6) -> Path:
    """PaddleX's `text_det`."""
    rows = []
    for number in range(count):
        save(folder / "images" / f"{number}.png", picture(800 + number, height=120, width=160))
        rows.append(f"images/{number}.png\t{json.dumps([box(WORDS[number])])}\n")
    (folder / "train.txt").write_text("".join(rows[:4]), encoding="utf-8")
    (folder / "val.txt").write_text("".join(rows[4:]), encoding="utf-8")
    return folder


def char_folders(folder: Path, *, each: int = 4) -> Path:
    """Single characters by id, with both tables."""
    rows = []
    for number, character in enumerate("abc", start=1):
        for index in range(each):
            path = f"data/{number}/{character}_{index}.png"
            save(folder / path, picture(number * 100 + index, height=32, width=32, text=character))
            rows.append([path, character, str(number)])
    write_csv(folder / "samples.csv", [["path", "character", "id"], *rows])
    (folder / "id2char.json").write_text(json.dumps({"1": "a", "2": "b", "3": "c"}), encoding="utf-8")
    return folder


def write_csv(path: Path, rows: list[list[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)


def read_csv(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def icdar(folder: Path, *, count: int = 6) -> Path:
    for number in range(count):
        save(folder / f"img_{number}.png", picture(200 + number, height=120, width=160))
        text = f"10,10,60,10,60,40,10,40,{WORDS[number]}, with a comma\r\n"
        (folder / f"gt_img_{number}.txt").write_text(text, encoding="utf-8-sig")
    return folder


def coco(folder: Path, *, count: int = 6) -> Path:
    images, annotations = [], []
    for number in range(count):
        save(folder / "images" / f"{number}.png", picture(300 + number, height=120, width=160))
        images.append({"id": number, "file_name": f"images/{number}.png", "width": 160, "height": 120})
        flat = [value for point in SQUARE for value in point]
        annotations.append({"id": number, "image_id": number, "segmentation": [flat], "text": WORDS[number]})
    (folder / "labels.json").write_text(json.dumps({"images": images, "annotations": annotations}), encoding="utf-8")
    return folder


CCPD_NAME = "025-95_113-10&10_90&40-90&40_10&40_10&10_90&10-0_0_22_27_27_33_{}-37-15.png"


def ccpd(folder: Path, *, count: int = 6) -> Path:
    for number in range(count):
        save(folder / CCPD_NAME.format(number), picture(400 + number, height=80, width=120))
    return folder


def ppocrlabel(folder: Path, *, count: int = 6) -> Path:
    rows, states = [], []
    for number in range(count):
        save(folder / f"{number}.png", picture(500 + number, height=120, width=160))
        rows.append(f"{folder.name}/{number}.png\t{json.dumps([box(WORDS[number])])}\n")
        states.append(f"C:\\elsewhere\\{number}.png\t1\n")
    (folder / "Label.txt").write_text("".join(rows), encoding="utf-8")
    (folder / "fileState.txt").write_text("".join(states), encoding="utf-8")
    return folder


def table(folder: Path, *, count: int = 12) -> Path:
    """Pictures with a CSV file."""
    rows = [["file", "words"]]
    for number in range(count):
        save(folder / f"{number}.png", picture(600 + number))
        rows.append([f"{number}.png", WORDS[number % len(WORDS)]])
    write_csv(folder / "labels.csv", rows)
    return folder


def database(folder: Path, *, count: int = 12) -> Path:
    import lmdb

    folder.mkdir(parents=True, exist_ok=True)
    environment = lmdb.open(str(folder), map_size=1 << 24)
    with environment.begin(write=True) as transaction:
        for number in range(1, count + 1):
            done, content = cv2.imencode(".png", picture(700 + number))
            assert done
            transaction.put(f"image-{number:09d}".encode(), content.tobytes())
            transaction.put(f"label-{number:09d}".encode(), WORDS[number % len(WORDS)].encode())
        transaction.put(b"num-samples", str(count).encode())
    environment.close()
    return folder


def zipped(folder: Path, target: Path) -> Path:
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(folder).as_posix())
    return target


def tarred(folder: Path, target: Path) -> Path:
    """A tar archive, compressed as its name says."""
    kind = target.suffix.removeprefix(".")
    with tarfile.open(target, f"w:{kind if kind in ('gz', 'bz2', 'xz') else ''}") as archive:
        archive.add(folder, arcname=".")
    return target


def jpeg(image: np.ndarray) -> bytes:
    done, content = cv2.imencode(".jpg", image)
    assert done
    return content.tobytes()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and has next to no data."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    out = io.BytesIO()
    out.write(b"\x89PNG\r\n\x1a\n")
    out.write(chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)))
    out.write(chunk(b"IDAT", zlib.compress(b"\0" * 100)))
    out.write(chunk(b"IEND", b""))
    return out.getvalue()
