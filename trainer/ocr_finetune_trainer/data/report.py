"""The data report: what is there, what is odd about it, and what that means for training. Plain JSON values.

Nothing here decides anything; `preparation` does. The report says what a person should look at before a GPU is used.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ocr_finetune_api.model_table import Kind
from ocr_finetune_trainer.data.catalogue import UNUSED
from ocr_finetune_trainer.data.preparation import SIDE_NAMES
from ocr_finetune_trainer.data.split import TEST, TRAIN, VALIDATION
from ocr_finetune_trainer.data.table_report import table_facts

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ocr_finetune_api.results import Choice
    from ocr_finetune_trainer.data.catalogue import Catalogue
    from ocr_finetune_trainer.data.preparation import Examination

__all__ = ["SCHEMA_VERSION", "build"]

SCHEMA_VERSION = 1
EXAMPLES = 24
SUSPECTS = 12  # pictures shown of each kind; all are counted
RARE = 10
_BLANK_CONTRAST = 12
_TINY_SIDE = 10
_LEAST = {Kind.RECOGNITION: (5000, "lines"), Kind.DETECTION: (500, "pages")}


def build(found: Examination, *, kind: Kind, model: str, choices: Sequence[Choice] = ()) -> dict[str, Any]:
    """Makes the report.

    Args:
        found: What was found out about the data.
        kind: What the model does.
        model: Its name.
        choices: What `auto` will stand for in training.

    Returns:
        JSON values; `examples` and `suspects` name samples by number, for whoever shows their pictures.
    """
    catalogue = found.catalogue
    used = np.flatnonzero(catalogue.side != UNUSED)
    report: dict[str, Any] = {
        "schemaVersion": SCHEMA_VERSION,
        "kind": kind.value,
        "model": model,
        "sources": _sources(found),
        "splits": {name: len(found.chosen(side)) for side, name in SIDE_NAMES.items()},
        "bySource": _by_source(found),
        "splitGiven": found.given,
        "rejected": _rejected(found),
        "unusable": dict(found.unusable),
        "converted": catalogue.converted,
        "changedLabels": {
            "counts": dict(found.cleaner.changed),
            "examples": {kind_: list(pairs) for kind_, pairs in found.cleaner.examples.items()},
        },
        "sizes": _sizes(catalogue, used, kind),
        "duplicates": _duplicates(found),
        "guide": _guide(found, kind),
        "suspects": _suspects(found, used, kind),
        "examples": _examples(found),
        "choices": [choice.model_dump(mode="json", by_alias=True) for choice in choices],
        "errors": [str(problem) for problem in found.errors],
        "problems": [problem.to_json() for problem in found.problems],
    }
    if kind is Kind.RECOGNITION:
        report["labels"] = _labels(found, used)
        report["characters"] = _characters(found)
    if kind is Kind.TABLE:
        report["tables"] = table_facts(catalogue, used)
    report["advice"] = _advice(found, report, kind)
    return report


def _sources(found: Examination) -> list[dict[str, Any]]:
    catalogue = found.catalogue
    usable = np.bincount(catalogue.source[catalogue.side != UNUSED], minlength=len(found.sources))
    return [
        {
            "name": source.name,
            "uri": source.uri,
            "format": source.format,
            "reason": source.reason,
            "records": source.records,
            "usable": int(usable[number]),
            "foundPictures": dict(source.ways),
        }
        for number, source in enumerate(found.sources)
    ]


def _guide(found: Examination, kind: Kind) -> dict[str, Any]:
    """What PaddleOCR's guide recommends, and what is there."""
    least, unit = _LEAST.get(kind, (0, "samples"))
    changed = kind is Kind.RECOGNITION and found.merge is not None and bool(found.merge.kept) and bool(found.merge.new)
    return {"unit": unit, "recommended": least, "there": len(found.chosen(TRAIN)), "dictionaryChanges": changed}


def _by_source(found: Examination) -> dict[str, dict[str, int]]:
    table: dict[str, dict[str, int]] = {}
    for side, name in SIDE_NAMES.items():
        numbers = np.bincount(found.catalogue.source[found.chosen(side)], minlength=len(found.sources))
        table[name] = {
            source.name: int(number) for source, number in zip(found.sources, numbers, strict=True) if number
        }
    return table


def _rejected(found: Examination) -> dict[str, Any]:
    kinds: Counter[str] = Counter()
    for problem in found.problems:
        kinds[problem.kind] += problem.samples
    total = max(found.total, 1)
    return {
        "samples": found.rejected,
        "share": round(found.rejected / total, 6),
        "kinds": {kind: count for kind, count in kinds.most_common() if count},
    }


def histogram(values: NDArray[Any], *, bins: int = 30, whole: bool = False) -> dict[str, list[float]]:
    """Counts in bins of equal width; the widest hundredth is put into the last bin.

    Returns:
        `edges` (B + 1) and `counts` (B).
    """
    if not len(values):
        return {"edges": [], "counts": []}
    low, high = float(values.min()), float(np.quantile(values, 0.99))
    if whole:
        width = max(1, -(-int(high - low + 1) // bins))
        edges = np.arange(int(low), int(high) + width + 1, width, dtype=np.float64)
    else:
        edges = np.linspace(low, max(high, low + 1e-6), bins + 1)
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), bins=edges)
    return {"edges": [round(float(edge), 4) for edge in edges], "counts": [int(count) for count in counts]}


def _sizes(catalogue: Catalogue, used: NDArray[np.int64], kind: Kind) -> dict[str, Any]:
    width, height = catalogue.width[used], catalogue.height[used]
    sizes = {
        "width": histogram(width, whole=True),
        "height": histogram(height, whole=True),
        "ratio": histogram(width / np.maximum(height, 1)),
        "bytes": int(catalogue.encoded[used].sum()),
    }
    if kind is Kind.DETECTION:
        sizes["boxes"] = histogram(catalogue.boxes[used], whole=True)
        sizes["boxesInAll"] = int(catalogue.boxes[used].clip(0).sum())
    return sizes


def _labels(found: Examination, used: NDArray[np.int64]) -> dict[str, Any]:
    lengths = np.asarray([len(found.catalogue.texts[index]) for index in used], dtype=np.int64)
    return {
        "length": histogram(lengths, whole=True),
        "longest": int(lengths.max(initial=0)),
        "maxTextLength": found.max_text_length,
        "distinct": len({found.catalogue.texts[index] for index in used}),
    }


def _characters(found: Examination) -> dict[str, Any]:
    counts = {side: Counter[str]() for side in SIDE_NAMES}
    split = found.merge.dictionary.split if found.merge is not None else list
    for side, counter in counts.items():
        for index in found.chosen(side):
            counter.update(split(found.catalogue.texts[index]))
    training = counts[TRAIN]
    everything = sum(counts.values(), Counter[str]())
    merged = found.merge
    table = sorted(everything, key=lambda c: (-everything[c], c))
    return {
        "distinct": len(everything),
        "counts": [[c, training[c], counts[VALIDATION][c], counts[TEST][c]] for c in table],
        "rare": sorted(c for c in training if training[c] < RARE),
        "onlyInTest": sorted(c for c in counts[TEST] if c not in training),
        "onlyInValidation": sorted(c for c in counts[VALIDATION] if c not in training),
        "notInDictionary": list(merged.missing) if merged else [],
        "dictionary": {
            "size": merged.dictionary.size if merged else 0,
            "space": bool(merged and merged.dictionary.use_space),
            "mode": merged.mode.value if merged else "",
            "kept": len(merged.kept) if merged else 0,
            "new": list(merged.new) if merged else [],
            "dropped": len(merged.dropped) if merged else 0,
            "neverSeen": sum(c not in everything for c in merged.dictionary.classes[1:]) if merged else 0,
        },
    }


def _duplicates(found: Examination) -> dict[str, Any]:
    return {
        "equal": len(found.exact),
        "alike": len(found.near),
        "acrossSplits": len(found.leaks),
        "leaks": [_pair(found, pair) for pair in found.leaks[:200]],
        "contradicting": [_pair(found, pair) for pair in _contradicting(found)],
    }


def _pair(found: Examination, pair: NDArray[np.int64]) -> list[dict[str, Any]]:
    return [_sample(found.catalogue, int(index)) for index in pair]


def _contradicting(found: Examination) -> list[NDArray[np.int64]]:
    """Pairs of pictures that look the same and have different labels: at least one label is wrong."""
    texts = found.catalogue.texts
    pairs = np.concatenate([found.exact, found.near])
    lines = found.catalogue.boxes
    return [pair for pair in pairs if lines[pair[0]] < 0 and texts[pair[0]] != texts[pair[1]]]


def _sample(catalogue: Catalogue, index: int) -> dict[str, Any]:
    return {
        "id": index,
        "text": catalogue.texts[index],
        "place": catalogue.place(index),
        "width": int(catalogue.width[index]),
        "height": int(catalogue.height[index]),
        "split": SIDE_NAMES.get(int(catalogue.side[index]), "unused"),
    }


def _suspects(found: Examination, used: NDArray[np.int64], kind: Kind) -> dict[str, Any]:
    catalogue = found.catalogue
    width, height = catalogue.width[used], catalogue.height[used]
    groups: dict[str, NDArray[np.int64]] = {
        "blank": used[catalogue.contrast[used] < _BLANK_CONTRAST],
        "tiny": used[(height < _TINY_SIDE) | (width < _TINY_SIDE // 2)],
    }
    pairs = np.concatenate([found.exact, found.near])
    groups["duplicate"] = np.unique(pairs[(catalogue.side[pairs] != UNUSED).all(axis=1)])
    if kind is Kind.RECOGNITION:
        groups["tooLong"] = np.asarray(found.too_long, dtype=np.int64)
        groups["mislabelled"] = _odd_lengths(catalogue, used)
        groups["upright"] = used[(height > 2 * width) & (_lengths(catalogue, used) > 1)]
    else:
        groups["withoutBoxes"] = used[catalogue.boxes[used] == 0]
    conflicts = _contradicting(found)
    groups["contradicting"] = np.unique(np.concatenate(conflicts)) if conflicts else np.zeros(0, dtype=np.int64)
    return {
        name: {"count": len(members), "samples": [_sample(catalogue, int(index)) for index in members[:SUSPECTS]]}
        for name, members in groups.items()
    }


def _lengths(catalogue: Catalogue, used: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.asarray([len(catalogue.texts[index]) for index in used], dtype=np.float64)


def _odd_lengths(catalogue: Catalogue, used: NDArray[np.int64]) -> NDArray[np.int64]:
    """Samples whose label is far too long or too short for their width: most often a line got another's label."""
    lengths = _lengths(catalogue, used)
    if len(used) < 50 or np.median(lengths) < 2:
        return np.zeros(0, dtype=np.int64)
    advance = np.log(catalogue.width[used] / np.maximum(catalogue.height[used], 1) / np.maximum(lengths, 1))
    middle = np.median(advance)
    spread = max(1.4826 * float(np.median(np.abs(advance - middle))), 0.1)
    odd = np.abs(advance - middle) > max(4.0 * spread, np.log(3.0))
    found: NDArray[np.int64] = used[odd][np.argsort(-np.abs(advance - middle)[odd], kind="stable")]
    return found


def _examples(found: Examination) -> list[dict[str, Any]]:
    """Some training samples, evenly spread over the data, so that a report of the same data shows the same ones."""
    chosen = found.chosen(TRAIN)
    if not len(chosen):
        return []
    places = np.unique(np.linspace(0, len(chosen) - 1, EXAMPLES).round().astype(np.int64))
    return [_sample(found.catalogue, int(index)) for index in chosen[places]]


def _advice(found: Examination, report: dict[str, Any], kind: Kind) -> list[dict[str, str]]:
    """What a person should know, the worst first: level `error`, `warning` or `note`, and a sentence."""
    advice = [("error", str(problem)) for problem in found.errors]
    advice += [("warning", text) for text in _warnings(found, report)]
    advice += [("note", text) for text in _notes(report, kind)]
    return [{"level": level, "text": text} for level, text in advice]


def _warnings(found: Examination, report: dict[str, Any]) -> Iterable[str]:
    guide = report["guide"]
    if guide["there"] < guide["recommended"]:
        yield _against_the_guide(guide)
    rejected = report["rejected"]
    if rejected["samples"]:
        kinds = ", ".join(f"{count} {name}" for name, count in rejected["kinds"].items())
        yield f"{rejected['samples']} samples ({100 * rejected['share']:.2f} %) can't be used: {kinds}"
    if not report["splits"]["test"]:
        yield "there is no test set, so the result will be measured on the validation set and be optimistic"
    if len(found.leaks):
        yield f"{len(found.leaks)} pairs of pictures that look the same lie in different splits of the given split"
    for name, text in (
        ("contradicting", "pictures look the same and have different labels: at least one of each pair is wrong"),
        ("blank", "pictures show next to nothing"),
        ("tiny", f"pictures are under {_TINY_SIDE} pixels high or {_TINY_SIDE // 2} wide"),
        ("mislabelled", "labels are far too long or too short for their pictures"),
        ("upright", "pictures stand upright although their text has several characters; lines must lie"),
        ("withoutBoxes", "pages have no box at all"),
    ):
        count = report["suspects"].get(name, {"count": 0})["count"]
        if count:
            yield f"{count} {text}"
    yield from _character_warnings(report)
    for problem in found.problems:
        if not problem.samples and not problem.fatal and problem.kind not in ("unknown-character", "long-label"):
            yield str(problem)


def _character_warnings(report: dict[str, Any]) -> Iterable[str]:
    characters = report.get("characters")
    if not characters:
        return
    for key, what in (
        ("onlyInTest", "characters are in the test set only, and can't be learnt"),
        ("onlyInValidation", "characters are in the validation set only, and can't be learnt"),
        ("rare", f"characters are seen fewer than {RARE} times in training"),
    ):
        found = characters[key]
        if found:
            shown = " ".join(found[:30]) + (" …" if len(found) > 30 else "")
            yield f"{len(found)} {what}: {shown}"


def _against_the_guide(guide: dict[str, Any]) -> str:
    more = ", and more of them where the dictionary changes" if guide["dictionaryChanges"] else ""
    recommended = f"PaddleOCR's guide recommends at least {guide['recommended']}{more}"
    return f"{guide['there']} {guide['unit']} for training; {recommended}"


def _notes(report: dict[str, Any], kind: Kind) -> Iterable[str]:
    training, guide = report["splits"]["train"], report["guide"]
    if guide["there"] >= guide["recommended"] > 0:
        yield _against_the_guide(guide)
    if kind is Kind.RECOGNITION and report["labels"]["longest"] <= 1 and training:
        # The table of the guide for single characters.
        expected = "95 % and more" if training > 50_000 else "85 to 95 %" if training >= 10_000 else "70 to 85 %"
        yield f"with {training} pictures of single characters others reach an accuracy of {expected}"
    for reason, count in report["converted"].items():
        yield f"{count} pictures were converted so that training sees what a viewer shows ({reason})"
    for change, count in report["changedLabels"]["counts"].items():
        yield f"{count} labels were changed ({change})"
    duplicates = report["duplicates"]
    if duplicates["equal"] or duplicates["alike"]:
        equal, alike = duplicates["equal"], duplicates["alike"]
        yield f"{equal} pairs of equal pictures and {alike} that look the same, kept together"
