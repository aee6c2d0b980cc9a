"""What kind of mistakes a detector makes, where labels may be missing, and what data would help."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ocr_finetune_trainer.metrics.detection import match_page
from ocr_finetune_trainer.metrics.polygons import overlaps, to_geometries, usable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ocr_finetune_trainer.evaluation.detection import DetectedPage

__all__ = ["PageMistakes", "error_kinds", "mistakes_of", "suggestions"]

MISSED, MERGED, PIECES, INEXACT, NOTHING_THERE = (
    "not found at all",
    "run together with a neighbour",
    "found in pieces",
    "found, but too inexactly",
    "found where no text is",
)
CONFIDENT = 0.9
_LEAST_TEXTS = 10


@dataclass(frozen=True, kw_only=True)
class PageMistakes:
    """What is wrong on one page.

    Attributes:
        index: Position in its data set.
        missed: Each missed text by its number on the page, with the kind of mistake.
        extra: Numbers of found regions where no text is.
        unlabelled: Those of them that the model is sure of: the label may be missing.
    """

    index: int
    missed: Mapping[int, str]
    extra: tuple[int, ...]
    unlabelled: tuple[int, ...]


def mistakes_of(page: DetectedPage) -> PageMistakes:
    """Looks at one page; regions are the same ones that `match_page` counts at an overlap of 0.5."""
    found = [region.points for region in page.found]
    true_shapes, found_shapes = to_geometries(page.truths), to_geometries(found)
    kept_true, kept_found = np.flatnonzero(usable(true_shapes)), np.flatnonzero(usable(found_shapes))
    both = overlaps(true_shapes[kept_true], found_shapes[kept_found])
    pairs = [
        (int(kept_true[t]), int(kept_found[f]), float(shared), float(both.first_areas[t]), float(both.second_areas[f]))
        for t, f, shared in zip(both.first, both.second, both.shared, strict=True)
    ]
    hits = {true for true, _ in match_page(page.truths, page.ignored, found).pairs}
    swallowed: dict[int, set[int]] = {}
    inside: dict[int, set[int]] = {}
    for true, other, shared, true_area, found_area in pairs:
        if shared > 0.5 * true_area and not page.ignored[true]:
            swallowed.setdefault(other, set()).add(true)
        if shared > 0.5 * found_area:
            inside.setdefault(true, set()).add(other)
    missed: dict[int, str] = {}
    for true in kept_true.tolist():
        if true in hits or page.ignored[true]:
            continue
        touching = {other for t, other, *_ in pairs if t == true}
        if not touching:
            missed[true] = MISSED
        elif any(len(swallowed.get(other, ())) > 1 for other in touching):
            missed[true] = MERGED
        else:
            missed[true] = PIECES if len(inside.get(true, ())) > 1 else INEXACT
    touched = {other for _, other, *_ in pairs}
    extra = tuple(other for other in kept_found.tolist() if other not in touched)
    sure = tuple(other for other in extra if page.found[other].score >= CONFIDENT)
    return PageMistakes(index=page.index, missed=missed, extra=extra, unlabelled=sure)


def error_kinds(mistakes: Iterable[PageMistakes]) -> list[dict[str, Any]]:
    """How often each kind of mistake is made and on which pages, the most frequent first."""
    counts: Counter[str] = Counter()
    pages: dict[str, list[int]] = {}
    for page in mistakes:
        here = Counter(page.missed.values()) + Counter({NOTHING_THERE: len(page.extra)})
        counts += here
        for kind in here:
            pages.setdefault(kind, []).append(page.index)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [{"kind": kind, "texts": count, "pages": pages[kind][:50]} for kind, count in ordered]


def suggestions(
    *,
    overall: Mapping[str, Any],
    by_size: Mapping[str, Mapping[str, Any]],
    by_source: Mapping[str, Mapping[str, Any]],
    mistakes: Sequence[PageMistakes],
) -> list[str]:
    """What to do about the data, in sentences.

    Args:
        overall: The figures of the whole set.
        by_size: Recall by height of the text.
        by_source: Figures by source.
        mistakes: Those of each page.
    """
    advice = [
        f"Texts {name} pixels high: {row['recall']:.1%} are found against {overall['recall']:.1%} overall "
        f"({row['texts']} texts); add pages with such texts."
        for name, row in by_size.items()
        if row["texts"] >= _LEAST_TEXTS and row["recall"] < overall["recall"] - 0.1
    ]
    if len(by_source) > 1:
        advice += [
            f"Source {name}: hmean {row['hmean']:.1%} against {overall['hmean']:.1%} overall ({row['pages']} pages); "
            "add more of it."
            for name, row in by_source.items()
            if row["hmean"] < overall["hmean"] - 0.1
        ]
    kinds = {row["kind"]: row["texts"] for row in error_kinds(mistakes)}
    total = sum(kinds.values())
    told = {
        MERGED: "Neighbouring texts are run together; check that labels end where a text ends, or add tightly set pages.",
        PIECES: "Texts are found in pieces; check whether labels are lines or words: the model learns what they are.",
        INEXACT: "Outlines are too inexact; check that labels are drawn tightly and alike.",
    }
    advice += [text for kind, text in told.items() if total and kinds.get(kind, 0) > 0.3 * total]
    unlabelled = sum(len(page.unlabelled) for page in mistakes)
    if unlabelled:
        advice.append(f"{unlabelled} texts that the model is sure of have no label; look whether labels are missing.")
    return advice
