"""The samples worth a second look as a PPOCRLabel folder: open it, correct and confirm, and give it back as a source.

`PPOCRLabel --lang en evaluation/badcases` opens it. Nothing is confirmed at first, so as a training source (`format:
ppocrlabel`) it brings in just what a person has confirmed.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocr_finetune_trainer.evaluation.files import write_bytes, write_jsonl, write_text

if TYPE_CHECKING:
    from ocr_finetune_trainer.data.store import DataSet
    from ocr_finetune_trainer.evaluation.detection import DetectedPage
    from ocr_finetune_trainer.evaluation.records import ReadSample

__all__ = ["BadCase", "bad_lines", "bad_pages", "write_bad_cases"]

FOLDER = "badcases"


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


def bad_pages(pages: Iterable[DetectedPage], *, texts: Callable[[int], Sequence[str]]) -> list[BadCase]:
    """Pages with their labels as they are."""
    return [
        BadCase(
            index=page.index,
            boxes=[
                (points.tolist(), text, ignored)
                for points, text, ignored in zip(page.truths, texts(page.index), page.ignored, strict=True)
            ],
            why="texts missed, or found where none is",
        )
        for page in pages
    ]


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
