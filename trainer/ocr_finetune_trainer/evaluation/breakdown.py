"""Where a model fails: by source, length, difficulty and character, what it confuses, and what to do about it."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rapidfuzz.distance import Levenshtein

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from ocr_finetune_trainer.evaluation.records import ReadSample, RecognitionMeasurement

__all__ = [
    "Confusion",
    "align",
    "by_character",
    "by_difficulty",
    "by_length",
    "by_source",
    "clusters",
    "confusions",
    "difficulties",
    "likely_wrong_labels",
    "regressions",
    "suggestions",
]

LENGTHS = ((1, 1), (2, 5), (6, 10), (11, 20), (21, 40), (41, 100), (101, 10**9))
CONFIDENT = 0.9
RELIABLE = 0.9
SMALL_HEIGHT = 16
LOW_CONTRAST = 50.0
LOW_SHARPNESS = 150.0
LONG_TEXT = 25

Group = dict[str, Any]


def _grouped(measurement: RecognitionMeasurement, names: Callable[[ReadSample], Iterable[str]]) -> dict[str, Group]:
    groups: dict[str, list[ReadSample]] = defaultdict(list)
    for sample in measurement.samples:
        for name in names(sample):
            groups[name].append(sample)
    return {name: measurement.metric_of(members).scores().as_dict() for name, members in groups.items()}


def by_source(measurement: RecognitionMeasurement) -> dict[str, Group]:
    """Figures of each source of the set."""
    return dict(sorted(_grouped(measurement, lambda sample: [sample.source]).items()))


def by_length(measurement: RecognitionMeasurement) -> dict[str, Group]:
    """Figures by the length of the label."""

    def name(sample: ReadSample) -> list[str]:
        length = len(sample.label)
        return [_range(low, high) for low, high in LENGTHS if low <= length <= high] or ["0"]

    groups = _grouped(measurement, name)
    return {key: groups[key] for key in ("0", *(_range(*pair) for pair in LENGTHS)) if key in groups}


def _range(low: int, high: int) -> str:
    return str(low) if low == high else f"{low}+" if high >= 10**9 else f"{low}-{high}"


def difficulties(sample: ReadSample, *, readable: frozenset[str]) -> list[str]:
    """What makes a sample hard; `plain` if nothing does."""
    found = []
    looks = sample.looks
    if sample.problem:
        return ["no picture"]
    if looks is not None and looks.height < SMALL_HEIGHT:
        found.append(f"under {SMALL_HEIGHT} pixels high")
    if looks is not None and looks.contrast < LOW_CONTRAST:
        found.append("low contrast")
    if looks is not None and looks.sharpness < LOW_SHARPNESS:
        found.append("blurred")
    if len(sample.label) > LONG_TEXT:
        found.append(f"over {LONG_TEXT} characters")
    if set(sample.label) - readable:
        found.append("characters outside the dictionary")
    return found or ["plain"]


def by_difficulty(measurement: RecognitionMeasurement) -> dict[str, Group]:
    """Figures by what makes a sample hard; a sample may be in several groups."""
    groups = _grouped(measurement, lambda sample: difficulties(sample, readable=measurement.readable))
    return dict(sorted(groups.items(), key=lambda item: item[1]["accuracy"]))


@dataclass(frozen=True, slots=True)
class Confusion:
    """One difference between a label and a prediction; an empty side is a missing or an extra character."""

    label: str
    prediction: str


def align(label: str, prediction: str) -> list[tuple[str, str]]:
    """Pairs of characters of label and prediction; "" where one of them has none."""
    pairs: list[tuple[str, str]] = []
    for code in Levenshtein.opcodes(label, prediction):
        left = label[code.src_start : code.src_end]
        right = prediction[code.dest_start : code.dest_end]
        pairs.extend(itertools.zip_longest(left, right, fillvalue=""))
    return pairs


def confusions(samples: Iterable[ReadSample]) -> list[tuple[Confusion, int]]:
    """What is read for what, the most frequent first."""
    counts: Counter[Confusion] = Counter()
    for sample in samples:
        if not sample.correct:
            counts.update(Confusion(a, b) for a, b in align(sample.label, sample.prediction) if a != b)
    return sorted(counts.items(), key=lambda item: (-item[1], item[0].label, item[0].prediction))


def by_character(measurement: RecognitionMeasurement) -> dict[str, dict[str, Any]]:
    """For each character of the labels: how often it stands there, and which part of them is read.

    `precision` is the part of what was read as this character that is it. The worst characters come first.
    """
    wanted: Counter[str] = Counter()
    hit: Counter[str] = Counter()
    read: Counter[str] = Counter()
    for sample in measurement.samples:
        for label, prediction in align(sample.label, sample.prediction):
            wanted[label] += bool(label)
            read[prediction] += bool(prediction)
            hit[label] += bool(label) and label == prediction
    rows = {
        character: {
            "count": count,
            "recall": hit[character] / count,
            "precision": hit[character] / read[character] if read[character] else 0.0,
            "readable": character in measurement.readable,
        }
        for character, count in wanted.items()
        if character
    }
    return dict(sorted(rows.items(), key=lambda item: (item[1]["recall"], -item[1]["count"], item[0])))


def regressions(
    new: RecognitionMeasurement, base: RecognitionMeasurement
) -> tuple[list[tuple[ReadSample, ReadSample]], list[tuple[ReadSample, ReadSample]]]:
    """Samples that the base model read and the new one does not, and the other way round, as (new, base)."""
    worse, better = [], []
    for after, before in zip(new.samples, base.samples, strict=True):
        if before.correct and not after.correct:
            worse.append((after, before))
        elif after.correct and not before.correct:
            better.append((after, before))
    return worse, better


def clusters(samples: Iterable[ReadSample], *, limit: int = 20) -> list[dict[str, Any]]:
    """Errors that look alike: the same characters confused, only missing ones, only spaces, nothing read at all."""
    groups: dict[str, list[int]] = defaultdict(list)
    for sample in samples:
        if not sample.correct:
            groups[_kind(sample)].append(sample.index)
    ordered = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    return [{"kind": kind, "samples": len(members), "indices": members[:50]} for kind, members in ordered[:limit]]


def _kind(sample: ReadSample) -> str:
    label, prediction = sample.label, sample.prediction
    if sample.problem:
        return "picture cannot be read"
    if not prediction:
        return "nothing read"
    if label.replace(" ", "") == prediction.replace(" ", ""):
        return "spaces only"
    if label.casefold() == prediction.casefold():
        return "upper and lower case only"
    different = [(a, b) for a, b in align(label, prediction) if a != b]
    if len(different) > max(2, len(label) // 2):
        return "mostly wrong"
    if all(not b for _, b in different):
        at_end = label.startswith(prediction)
        return "end of the text missing" if at_end else "characters missing"
    if all(not a for a, _ in different):
        return "characters too many"
    pairs = sorted({f"{a or '∅'}→{b or '∅'}" for a, b in different})
    return "confused: " + ", ".join(pairs[:3])


def likely_wrong_labels(measurement: RecognitionMeasurement, *, limit: int = 100) -> list[ReadSample]:
    """Samples whose label is probably the mistake: the model is sure of another text, and elsewhere is right when so sure.

    A confusion that the model makes often is left out: there it is the model that errs. A model that is often wrong
    where it is sure gives no reason to doubt labels at all.
    """
    sure = [sample.correct for sample in measurement.samples if sample.score >= CONFIDENT]
    if sum(sure) < RELIABLE * len(sure):
        return []
    often = {confusion for confusion, count in confusions(measurement.samples) if count >= 3}
    suspects = [
        sample
        for sample in measurement.samples
        if not sample.correct
        and sample.prediction
        and sample.score >= CONFIDENT
        and not set(sample.label) - measurement.readable
        and not {Confusion(a, b) for a, b in align(sample.label, sample.prediction) if a != b} <= often
    ]
    return sorted(suspects, key=lambda sample: (-sample.score, sample.index))[:limit]


def suggestions(
    measurement: RecognitionMeasurement, *, trained_on: Mapping[str, int] | None = None, limit: int = 20
) -> list[str]:
    """What data to add, in sentences.

    Args:
        measurement: The new model's.
        trained_on: How often each character stands in the training labels, if known.
        limit: How many characters are named at most.
    """
    advice: list[str] = []
    unreadable = measurement.unreadable()
    if unreadable:
        names = " ".join(list(unreadable)[:limit])
        advice.append(
            f"{len(unreadable)} characters of the test set are not in the dictionary: {names}. "
            "Add training samples with them and use dictionary.mode: extend."
        )
    weak = [name for name, row in by_character(measurement).items() if row["readable"] and row["recall"] < 0.8]
    if weak:
        shown = [
            f"{name} ({trained_on.get(name, 0)} in training)" if trained_on is not None else name
            for name in weak[:limit]
        ]
        advice.append(f"{len(weak)} characters are read less than 4 times in 5; add samples with: {', '.join(shown)}.")
    overall = measurement.metric.scores().accuracy
    for title, groups in (
        ("texts of length", by_length(measurement)),
        ("pictures:", by_difficulty(measurement)),
        ("source", by_source(measurement)),
    ):
        advice += _weak_groups(title, groups, overall=overall)
    return advice


def _weak_groups(title: str, groups: Mapping[str, Group], *, overall: float) -> Sequence[str]:
    least = 10
    return [
        f"{title} {name}: {row['accuracy']:.1%} against {overall:.1%} overall ({row['samples']} samples); add more of them."
        for name, row in groups.items()
        if row["samples"] >= least and row["accuracy"] < overall - 0.1 and len(groups) > 1
    ]
