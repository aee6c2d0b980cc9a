"""The report on a recognition model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

from ocr_finetune_trainer.evaluation import breakdown
from ocr_finetune_trainer.evaluation.report.page import picture, render
from ocr_finetune_trainer.evaluation.report.recognition_template import TEMPLATE

if TYPE_CHECKING:
    from ocr_finetune_trainer.evaluation.recognition import RecognitionEvaluation
    from ocr_finetune_trainer.evaluation.records import ReadSample

__all__ = ["aligned", "recognition_report"]

WORST = 120
REGRESSIONS = 60
SUSPECTS = 60
_MATRIX = 40
_CHARACTERS = 60

PictureOf = Callable[[int], "NDArray[np.uint8] | None"]

_ROWS = (
    ("accuracy", "accuracy", True),
    ("editSimilarity", "edit similarity", True),
    ("characterErrorRate", "character error rate", True),
    ("wordErrorRate", "word error rate", True),
    ("paddleocrAccuracy", "PaddleOCR's acc", True),
    ("paddleocrEditSimilarity", "PaddleOCR's norm_edit_dis", True),
    ("samples", "samples", False),
)


def recognition_report(
    evaluation: RecognitionEvaluation,
    *,
    picture_of: PictureOf,
    title: str,
    facts: Mapping[str, str],
    verdict: Mapping[str, Any],
    origin_of: Callable[[int], str] = str,
    sections: Sequence[Markup] = (),
) -> str:
    """Writes the report as HTML.

    Args:
        evaluation: What was measured.
        picture_of: The picture of a sample by its index, BGR; None if it has none.
        title: Title of the page.
        facts: What stands at the top: run, model, data, dates.
        verdict: `passed`, `failures` and `notes` of the gate; empty without a gate.
        origin_of: Where a sample's label stands.
        sections: Further parts.
    """

    def cards(samples: Iterable[ReadSample], olds: Mapping[int, str] | None = None) -> list[dict[str, Any]]:
        return [_card(sample, picture_of, origin_of, (olds or {}).get(sample.index)) for sample in samples]

    document = evaluation.document
    worse = [new for new, _ in evaluation.regressions[0][:REGRESSIONS]]
    wrong = sum(not sample.correct for sample in evaluation.best.samples)
    return render(
        TEMPLATE,
        title=title,
        facts=facts,
        verdict=verdict,
        rows=_table(document),
        sections=sections,
        document=document,
        wrong=wrong,
        worst=cards(evaluation.worst(WORST)),
        worse=cards(worse, {new.index: old.prediction for new, old in evaluation.regressions[0]}),
        suspects=cards(breakdown.likely_wrong_labels(evaluation.best, limit=SUSPECTS)),
        matrix=_matrix(evaluation.best.samples),
        characters=list(document["byCharacter"].items())[:_CHARACTERS],
        coverage=[(point["coverage"], point["accuracy"]) for point in document["calibration"]["coverage"]],
        reliability=[(row["score"], row["accuracy"]) for row in document["calibration"]["bins"]],
    )


def _table(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    base, best, intervals = document.get("base") or {}, document["best"], document["intervals"]
    rows = []
    for key, label, percent in _ROWS:
        if best.get(key) is None:
            continue
        span = intervals.get(key)
        rows.append(
            {
                "label": label,
                "before": _number(base.get(key), percent=percent),
                "after": _number(best[key], percent=percent),
                "interval": f"{span['low']:.2%} – {span['high']:.2%}" if span else "",
            }
        )
    return rows


def _number(value: float | None, *, percent: bool) -> str:
    if value is None:
        return "–"
    return f"{value:.2%}" if percent else f"{value:,}"


def _card(
    sample: ReadSample, picture_of: PictureOf, origin_of: Callable[[int], str], old: str | None
) -> dict[str, Any]:
    image = picture_of(sample.index)
    label, prediction = aligned(sample.label, sample.prediction)
    return {
        "image": picture(image) if image is not None else Markup('<span class="bad">no picture</span>'),
        "label": label,
        "prediction": prediction,
        "old": old,
        "score": f"{sample.score:.3f}",
        "origin": origin_of(sample.index),
        "problem": sample.problem,
    }


def aligned(label: str, prediction: str) -> tuple[Markup, Markup]:
    """Label and prediction with what differs marked; spaces that differ are shown as ␣, missing characters as ·."""
    left, right = Markup(), Markup()
    for a, b in breakdown.align(label, prediction):
        if a == b:
            left, right = left + escape(a), right + escape(b)
        else:
            left += Markup("<b>{}</b>").format(_visible(a))
            right += Markup("<b>{}</b>").format(_visible(b))
    return left, right


def _visible(character: str) -> str:
    return "·" if not character else "␣" if character.isspace() else character


def _matrix(samples: Sequence[ReadSample]) -> dict[str, Any] | None:
    """Label by prediction where the alphabet is small enough to look at; None otherwise."""
    counts: dict[tuple[str, str], int] = {}
    for sample in samples:
        for pair in breakdown.align(sample.label, sample.prediction):
            counts[pair] = counts.get(pair, 0) + 1
    names = sorted({name for pair in counts for name in pair if name})
    if not names or len(names) > _MATRIX:
        return None
    columns = [*names, ""]
    return {
        "columns": [_visible(name) for name in columns],
        "rows": [
            {
                "name": _visible(row),
                "cells": [
                    {"count": counts.get((row, column), 0), "right": row == column and row != ""} for column in columns
                ],
            }
            for row in columns
        ],
    }
