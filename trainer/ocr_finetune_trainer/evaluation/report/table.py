"""The report on a table model: figures, and the worst tables with their cells drawn and both tables side by side."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from ocr_finetune_trainer.evaluation.drawing import FALSE, FOUND, MISSED, draw_outlines
from ocr_finetune_trainer.evaluation.report.page import picture, render
from ocr_finetune_trainer.evaluation.report.samples import HEAD, rows_of
from ocr_finetune_trainer.metrics.detection import match_page
from ocr_finetune_trainer.metrics.table import box_polygon

if TYPE_CHECKING:
    from ocr_finetune_trainer.evaluation.tables import ReadTable

__all__ = ["drawn", "table_report"]

_HEIGHT, _WIDTH = 420, 700
_LABELS = {
    "structureAccuracy": "structure exactly right",
    "structureAccuracyWithoutSections": "without regard to head and body",
    "teds": "TEDS of the structure",
    "tedsWithText": "TEDS with the true texts in the cells found",
    "cellHmean": "cells found (hmean at IoU 0.5)",
}
_TEMPLATE = (
    """
{% macro cards(items) %}{% for item in items %}
<div class="card" style="max-width: 60rem">{{ item.image }}
<div class="columns"><div>{{ item.true }}</div><div>{{ item.read }}</div></div>
<div>TEDS {{ item.teds }}</div><div class="note">{{ item.origin }} {{ item.problem }}</div></div>
{% endfor %}{% endmacro %}
"""
    + HEAD
    + """
{% if worse %}<h2>What got worse</h2><p>Tables that the base model had right.
{% if worse|length < document.regressions.worse %} The first {{ worse|length }}:{% endif %}</p>{{ cards(worse) }}{% endif %}
<h2>Worst tables</h2>
<p>{{ wrong }} of {{ document.samples }} tables have another structure.{% if worst|length < wrong %} The worst
{{ worst|length }}; all are in predictions.jsonl.{% endif %} Green: a cell that was found. Red: missed. Blue: found
where no cell is. Left the true table, right the one that was read.</p>
{{ cards(worst) }}
"""
)
# Tags of a cell's content that may stand in a report as they are; anything else is shown as text.
_SAFE = re.compile(r"&lt;(/?(?:b|i|sup|sub|u|strong|em))&gt;|&lt;br&gt;")
_STRUCTURE = re.compile(r"</?(?:table|thead|tbody|tr|td)(?:\s+(?:colspan|rowspan)=\"\d+\")*>")


def table_report(
    document: Mapping[str, Any],
    *,
    worst: Sequence[ReadTable],
    wrong: int,
    worse: Sequence[ReadTable] = (),
    picture_of: Callable[[int], NDArray[np.uint8] | None],
    title: str,
    facts: Mapping[str, str],
    verdict: Mapping[str, Any],
    origin_of: Callable[[int], str] = str,
    sections: Sequence[Markup] = (),
) -> str:
    """Writes the report as HTML.

    Args:
        document: `SampleEvaluation.document`.
        worst: Tables to show.
        wrong: How many are wrong.
        worse: Tables to show that the base model had right.
        picture_of: The picture of a table by its index, BGR; None if it has none.
        title: Title of the page.
        facts: What stands at the top: run, model, data, dates.
        verdict: `passed`, `failures` and `notes` of the gate; empty without a gate.
        origin_of: Where a table's label stands.
        sections: Further parts.
    """
    return render(
        _TEMPLATE,
        title=title,
        facts=facts,
        verdict=verdict,
        document=document,
        main="structureAccuracy",
        sections=sections,
        rows=rows_of(document, _LABELS),
        wrong=wrong,
        worse=[_card(table, picture_of(table.index), origin_of(table.index)) for table in worse],
        worst=[_card(table, picture_of(table.index), origin_of(table.index)) for table in worst],
    )


def _card(table: ReadTable, image: NDArray[np.uint8] | None, origin: str) -> dict[str, Any]:
    return {
        "image": Markup('<span class="bad">no picture</span>')
        if image is None
        else picture(drawn(table, image), height=_HEIGHT, width=_WIDTH),
        "true": _shown(table.true_html),
        "read": _shown(table.read_html),
        "teds": f"{table.teds_structure:.4f}",
        "origin": origin,
        "problem": table.problem,
    }


def _shown(html: str) -> Markup:
    """A table as the browser draws it; characters are escaped already, and tags other than plain styles are shown."""
    parts: list[str] = []
    place = 0
    for match in _STRUCTURE.finditer(html):
        parts += [_text(html[place : match.start()]), match[0]]
        place = match.end()
    parts.append(_text(html[place:]))
    # An unbalanced structure must not swallow the rest of the page.
    closing = "".join(f"</{tag}>" for tag in ("td", "tr", "tbody", "thead", "table"))
    return Markup("".join(parts) + closing)  # noqa: S704 - escaped above


def _text(text: str) -> str:
    escaped = text.replace("<", "&lt;").replace(">", "&gt;")
    return _SAFE.sub(lambda match: f"<{match[1]}>" if match[1] else "<br>", escaped)


def drawn(table: ReadTable, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture with true and found cells drawn into it."""
    truths = [np.asarray(box) for box in table.boxes if box is not None]
    found = [] if table.read is None else [box_polygon(box) for box in table.read.boxes.tolist()]
    pairs = match_page(truths, [False] * len(truths), found).pairs
    hit_true, hit_found = {true for true, _ in pairs}, {other for _, other in pairs}
    image = draw_outlines(image, [p for i, p in enumerate(found) if i not in hit_found], color=FALSE)
    image = draw_outlines(image, [p for i, p in enumerate(found) if i in hit_found], color=FOUND)
    return draw_outlines(image, [p for i, p in enumerate(truths) if i not in hit_true], color=MISSED)
