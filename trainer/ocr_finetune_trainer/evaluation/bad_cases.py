"""The samples worth a second look as a folder of labels: open it, correct it, and give it back as a source.

Lines and pages become a PPOCRLabel folder: `PPOCRLabel --lang en evaluation/badcases` opens it. Nothing is confirmed at
first, so as a training source (`format: ppocrlabel`) it brings in just what a person has confirmed. Tables become JSON
lines (`format: pubtabnet`), of which a person keeps those that are corrected.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocr_finetune_trainer.data.pictures import encode
from ocr_finetune_trainer.evaluation.files import write_bytes, write_jsonl, write_text

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ocr_finetune_trainer.data.store import DataSet
    from ocr_finetune_trainer.evaluation.detection import DetectedPage
    from ocr_finetune_trainer.evaluation.records import ReadSample
    from ocr_finetune_trainer.evaluation.tables import ReadTable

__all__ = ["BadCase", "bad_lines", "bad_pages", "write_bad_cases", "write_bad_tables"]

FOLDER = "badcases"
# A cell's text as the layout wants it: tags whole, all else character by character.
_TOKENS = re.compile(r"<[^<>]+>|.", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class BadCase:
    """One sample to look at again.

    Attributes:
        index: Position in its data set.
        boxes: Its texts: outline and what the label says.
        why: Why it is here.
        prediction: What the model read, for lines.
    """

    index: int
    boxes: Sequence[tuple[Sequence[Sequence[float]], str, bool]]
    why: str
    prediction: str = ""


def bad_lines(samples: Iterable[tuple[ReadSample, str]], *, sizes: Any) -> list[BadCase]:
    """Lines as pages of one box.

    Args:
        samples: Samples and why they are here; of one that comes twice the first reason counts.
        sizes: (N, 2) width and height of each sample.
    """
    cases: dict[int, BadCase] = {}
    for sample, why in samples:
        width, height = (float(value) for value in sizes[sample.index])
        outline = [[0.0, 0.0], [width, 0.0], [width, height], [0.0, height]]
        case = BadCase(
            index=sample.index, boxes=[(outline, sample.label, False)], why=why, prediction=sample.prediction
        )
        cases.setdefault(sample.index, case)
    return list(cases.values())


def bad_pages(pages: Iterable[tuple[DetectedPage, str]], *, texts: Callable[[int], Sequence[str]]) -> list[BadCase]:
    """Pages with their labels as they are.

    Args:
        pages: Pages and why they are here; of one that comes twice the first reason counts.
        texts: What the labels of a page say.
    """
    cases: dict[int, BadCase] = {}
    for page, why in pages:
        boxes = [
            (points.tolist(), text, ignored)
            for points, text, ignored in zip(page.truths, texts(page.index), page.ignored, strict=True)
        ]
        cases.setdefault(page.index, BadCase(index=page.index, boxes=boxes, why=why))
    return list(cases.values())


def write_bad_tables(
    folder: Path,
    tables: Sequence[ReadTable],
    *,
    dataset: DataSet,
    drawn: Callable[[ReadTable], NDArray[np.uint8] | None],
) -> int:
    """Writes pictures, `gt.txt`, `why.jsonl`, and the pictures with true and found cells; replaces what was there.

    Args:
        folder: Where to.
        tables: The tables.
        dataset: Where they are from.
        drawn: Draws the cells into a table's picture; None where there is no picture.

    Returns:
        How many tables the folder holds.
    """
    shutil.rmtree(folder, ignore_errors=True)
    labels, reasons = [], []
    for table in tables:
        content = dataset.image(table.index)
        name = f"{table.index:06d}{_suffix(content)}"
        write_bytes(folder / name, content)
        cells = [
            {"tokens": _TOKENS.findall(text)} | ({} if box is None else {"bbox": box.ravel().tolist()})
            for text, box in zip(dataset[table.index].texts, table.boxes, strict=True)
        ]
        html = {"structure": {"tokens": list(table.structure)}, "cells": cells}
        labels.append({"filename": name, "html": html})
        reasons.append(
            {
                "picture": name,
                "why": table.problem or "another structure was read",
                "prediction": "".join(table.predicted),
                "origin": dataset.origin(table.index),
            }
        )
        image = drawn(table)
        if image is not None:
            write_bytes(folder / "drawn" / f"{table.index:06d}.png", encode(image, lossless=True))
    if labels:
        write_jsonl(folder / "gt.txt", labels)
        write_jsonl(folder / "why.jsonl", reasons)
    return len(labels)


def write_bad_cases(folder: Path, cases: Sequence[BadCase], *, dataset: DataSet) -> int:
    """Writes pictures, `Label.txt`, `fileState.txt` and `why.jsonl`; replaces what was there, by nothing if need be.

    Args:
        folder: Where to.
        cases: The samples.
        dataset: Where they are from.

    Returns:
        How many samples the folder holds.
    """
    shutil.rmtree(folder, ignore_errors=True)
    if not cases:
        return 0
    folder.mkdir(parents=True)
    labels, reasons = [], []
    for case in cases:
        content = dataset.image(case.index)
        name = f"{case.index:06d}{_suffix(content)}"
        write_bytes(folder / name, content)
        boxes = [
            {"transcription": "###" if ignored else text, "points": points, "difficult": ignored}
            for points, text, ignored in case.boxes
        ]
        labels.append(f"{folder.name}/{name}\t{json.dumps(boxes, ensure_ascii=False)}\n")
        reasons.append(
            {"picture": name, "why": case.why, "prediction": case.prediction, "origin": dataset.origin(case.index)}
        )
    write_text(folder / "Label.txt", "".join(labels))
    write_text(folder / "fileState.txt", "")
    write_jsonl(folder / "why.jsonl", reasons)
    return len(cases)


def _suffix(content: bytes) -> str:
    if content.startswith(b"\x89PNG"):
        return ".png"
    if content.startswith(b"BM"):
        return ".bmp"
    return ".webp" if content[8:12] == b"WEBP" else ".jpg"
