"""Which labels of a run can be trained on: cleaned, in the dictionary, and of a length that the model can read.

What is wrong with a training sample takes it out; in a set that measures it stays, and counts as wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ocr_finetune_trainer.data.catalogue import UNUSED
from ocr_finetune_trainer.data.labels import LabelProblem, Limits, frames_needed
from ocr_finetune_trainer.data.records import Problem
from ocr_finetune_trainer.data.split import TRAIN
from ocr_finetune_trainer.data.table_labels import vocabulary_for
from ocr_finetune_trainer.data.table_samples import untrainable
from ocr_finetune_trainer.dictionary import Dictionary, Mode, describe, merge

if TYPE_CHECKING:
    from ocr_finetune_trainer.data.catalogue import Catalogue
    from ocr_finetune_trainer.data.preparation import Examination, Settings

__all__ = ["check_labels", "check_structures", "clean", "decide_dictionary"]

LEAST_TEXT_LENGTH = 25
_TOO_LONG = frozenset({"long-label", "unalignable-label"})


def clean(found: Examination, catalogue: Catalogue) -> None:
    """Cleans all labels as the manifest allows; those that can't be trained on are taken out."""
    for index, text in enumerate(catalogue.texts):
        cleaned = found.cleaner.clean(text)
        if isinstance(cleaned, LabelProblem):
            catalogue.side[index] = UNUSED
            found.problems.append(_label_problem(catalogue, index, cleaned))
        else:
            catalogue.texts[index] = cleaned


def _label_problem(catalogue: Catalogue, index: int, problem: LabelProblem) -> Problem:
    return Problem(kind=problem.kind, source=catalogue.sources[int(catalogue.source[index])],
                   place=catalogue.place(index), what=problem.what, hint=problem.hint)  # fmt: skip


def decide_dictionary(settings: Settings, found: Examination) -> None:
    """Puts the dictionary together from that of the weights, the user's own, and the characters of the data."""
    cutter = settings.wanted or settings.base
    used: set[str] = set()
    held = [number for number, name in enumerate(found.catalogue.sources) if name in ("validation", "test")]
    learnable = (found.catalogue.side != UNUSED) & ~np.isin(found.catalogue.source, held)
    for index in np.flatnonzero(learnable):
        # Given validation and test sets may hold what nobody can learn; the dictionary is that of the training data.
        text = found.catalogue.texts[index]
        used.update(cutter.split(text) if cutter else text)
    spec = settings.model.dictionary
    found.merge = merge(
        settings.base,
        used=used,
        wanted=settings.wanted,
        mode=Mode(spec.mode),
        use_space={"auto": None, "yes": True, "no": False}[spec.space],
    )


def check_labels(settings: Settings, found: Examination) -> None:
    """Labels that can't be trained on: those of training are rejected, those of a test set stay and count as wrong."""
    if found.merge is None or settings.limits is None:
        return
    dictionary = found.merge.dictionary
    catalogue = found.catalogue
    asked = settings.model.max_text_length
    longest = 0
    found.frames = np.zeros(len(catalogue), dtype=np.int32)
    for index in np.flatnonzero(catalogue.side != UNUSED):
        text = catalogue.texts[index]
        entries = dictionary.split(text)
        found.frames[index] = frames_needed(entries)
        problem = _untrainable(
            text, entries, dictionary, frames=int(found.frames[index]), limits=settings.limits, asked=asked
        )
        if problem is None:
            longest = max(longest, len(entries)) if catalogue.side[index] == TRAIN else longest
            continue
        if problem.kind in _TOO_LONG:
            found.too_long.append(int(index))
        training = catalogue.side[index] == TRAIN
        reported = _label_problem(catalogue, index, problem)
        if training:
            catalogue.side[index] = UNUSED
            found.problems.append(reported)
        else:
            values = reported.to_json()
            values |= {"samples": 0, "hint": "it stays in the set and counts as wrong"}
            found.problems.append(Problem(**values))
    found.max_text_length = asked if isinstance(asked, int) else max(longest, LEAST_TEXT_LENGTH)


def check_structures(settings: Settings, found: Examination) -> None:
    """Tables that the model can't learn: those of training are rejected, others stay and count as wrong."""
    vocabulary = vocabulary_for(settings.model.name)
    catalogue = found.catalogue
    for index in np.flatnonzero(catalogue.side != UNUSED):
        wrong = untrainable(catalogue.texts[index], vocabulary)
        if wrong is None:
            continue
        if catalogue.side[index] == TRAIN:
            hint = "choose SLANet_plus, which knows more spans, or correct the table"
            found.problems.append(_label_problem(catalogue, index, LabelProblem(*wrong, hint)))
            catalogue.side[index] = UNUSED
        else:
            kept = LabelProblem(*wrong, "it stays in the set and counts as wrong")
            values = _label_problem(catalogue, index, kept).to_json()
            found.problems.append(Problem(**(values | {"samples": 0})))


def _untrainable(
    text: str, entries: Sequence[str], dictionary: Dictionary, *, frames: int, limits: Limits, asked: int | str
) -> LabelProblem | None:
    missing = [entry for entry in dict.fromkeys(entries) if entry not in dictionary]
    if missing:
        return LabelProblem("unknown-character", f"the label {text!r} uses {describe(missing)}, not in the dictionary",
                            "set model.dictionary.mode to extend, or correct the label")  # fmt: skip
    if isinstance(asked, int) and len(entries) > asked:
        return LabelProblem("long-label", f"the label has {len(entries)} characters, over maxTextLength {asked}",
                            "raise model.maxTextLength, or split the line")  # fmt: skip
    if frames > limits.frames:
        return LabelProblem("unalignable-label",
                            f"the label needs {frames} frames, and the model's widest input gives {limits.frames}",
                            "split the line into shorter ones")  # fmt: skip
    return None
