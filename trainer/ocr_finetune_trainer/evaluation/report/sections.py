"""Parts of a report that models of several kinds have: sets that must not be forgotten, and whole pages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray

from ocr_finetune_trainer.evaluation.drawing import FALSE, FOUND, MISSED, draw_outlines
from ocr_finetune_trainer.evaluation.report.page import picture

if TYPE_CHECKING:
    from ocr_finetune_trainer.evaluation.end_to_end import EndToEnd, ReadPage

__all__ = ["guard_section", "pages_section"]

SHOWN = 24
_HEIGHT, _WIDTH = 520, 800

_GUARDS = """
<h2>What must not be forgotten</h2>
<table><tr><th>set</th><th class="n">samples</th><th class="n">{{ metric }} before</th><th class="n">after</th>
<th class="n">may drop by</th></tr>
{% for row in rows %}<tr><td>{{ row.name }}</td><td class="n">{{ row.samples }}</td><td class="n">{{ row.before }}</td>
<td class="n {{ 'good' if row.passed else 'bad' }}">{{ row.after }}</td><td class="n">{{ row.limit }}</td></tr>
{% endfor %}</table>
"""

_PAGES = """
<h2>Whole pages</h2>
<p>{{ figures.pages }} pages through <span class="text">paddleocr.PaddleOCR</span> with {{ figures.detector }}, and
{{ figures.recogniser }}. A line is right if its place overlaps by {{ figures.iou }} and its text is equal.</p>
<table><tr><th></th><th class="n">before</th><th class="n">after</th><th class="n">95 % interval</th></tr>
{% for row in rows %}<tr><td>{{ row.label }}</td><td class="n">{{ row.before }}</td>
<td class="n"><b>{{ row.after }}</b></td><td class="n">{{ row.interval }}</td></tr>{% endfor %}</table>
{% if improvement %}<p>F-measure {{ improvement }}.</p>{% endif %}
{% if worse %}<p>{{ worse }} pages have fewer lines right than with the base model; they come first.</p>{% endif %}
{% if cards %}<p>Pages with mistakes{% if cards|length < wrong %}, {{ cards|length }} of {{ wrong }};
all are in pages.jsonl{% endif %}. Green: place and text are right. Red: not read, or not rightly. Blue: read where nothing
stands, or otherwise than it stands.</p>{% endif %}
{% for card in cards %}<div class="card wide">{{ card.image }}
<div>{{ card.hits }} of {{ card.true }} lines right{{ card.before }}</div>
<div class="text">{{ card.missed }}</div></div>
{% endfor %}
"""

PictureOf = Callable[[int], "NDArray[np.uint8] | None"]


def _rendered(template: str, **values: Any) -> Markup:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return Markup(environment.from_string(template).render(**values))  # noqa: S704 - rendered with escaping


def guard_section(guards: Mapping[str, Mapping[str, Any]], *, limits: Mapping[str, float], metric: str) -> Markup:
    """The guard sets before and after.

    Args:
        guards: By name, the figures `base` and `best` of each.
        limits: By name, how much the metric may drop.
        metric: The gate's metric.
    """
    from ocr_finetune_trainer.metrics.recognition import higher_is_better

    if not guards:
        return Markup("")
    rows = []
    for name, figures in guards.items():
        before, after = float(figures["base"][metric] or 0.0), float(figures["best"][metric] or 0.0)
        drop = before - after if higher_is_better(metric) else after - before
        samples = figures["best"].get("samples", figures["best"].get("pages", ""))
        rows.append(
            {
                "name": name,
                "samples": samples,
                "before": f"{before:.2%}",
                "after": f"{after:.2%}",
                "limit": f"{limits[name]:.2%}",
                "passed": drop <= limits[name],
            }
        )
    return _rendered(_GUARDS, rows=rows, metric=metric)


def pages_section(after: EndToEnd, before: EndToEnd | None, *, picture_of: PictureOf) -> Markup:
    """What both models of a pipeline read on whole pages, before and after.

    Args:
        after: With the new model.
        before: With the base model in its place; None if there is none.
        picture_of: The picture of a page by its index, BGR; None if it has none.
    """
    figures = after.as_dict(base=before)
    base = figures.get("base") or {}
    span = figures["fMeasureInterval"]
    rows = [
        {
            "label": label,
            "before": f"{base[name]:.2%}" if base else "–",
            "after": f"{figures[name]:.2%}",
            "interval": f"{span['low']:.2%} – {span['high']:.2%}" if name == "fMeasure" else "",
        }
        for name, label in (
            ("fMeasure", "F-measure"),
            ("precision", "precision"),
            ("recall", "recall"),
            ("characterAccuracy", "character accuracy"),
        )
    ]
    gain = figures.get("improvement")
    worse = {row["index"] for row in figures.get("regressions", ())}
    old = {page.index: page.counts.hits for page in before.pages} if before is not None else {}
    wrong = [page for page in after.pages if page.counts.hits < max(page.counts.true, page.counts.found)]
    wrong.sort(key=lambda page: (page.index not in worse, page.counts.hits - page.counts.true, page.index))
    return _rendered(
        _PAGES,
        figures=figures,
        rows=rows,
        improvement=gain and f"{gain['value']:+.2%} (95 % interval {gain['low']:+.2%} to {gain['high']:+.2%})",
        worse=len(worse),
        wrong=len(wrong),
        cards=[_card(page, picture_of(page.index), old.get(page.index), iou=after.iou) for page in wrong[:SHOWN]],
    )


def _card(page: ReadPage, image: NDArray[np.uint8] | None, before: int | None, *, iou: float) -> dict[str, Any]:
    right_true, right_found = page.right(iou=iou)
    missed = [line for i, line in enumerate(page.true) if i not in right_true and not line.ignored]
    extra = [line for i, line in enumerate(page.found) if i not in right_found]
    if image is None:
        shown: Markup = Markup('<span class="bad">no picture</span>')
    else:
        image = draw_outlines(image, _points(page.found, right_found), color=FOUND)
        image = draw_outlines(image, [line.points for line in extra], color=FALSE)
        image = draw_outlines(image, [line.points for line in missed], color=MISSED)
        shown = picture(image, height=_HEIGHT, width=_WIDTH)
    told = [f"not read: {line.text}" for line in missed[:10]] + [f"read instead: {line.text}" for line in extra[:10]]
    return {
        "image": shown,
        "hits": page.counts.hits,
        "true": page.counts.true,
        "before": "" if before is None else f", {before} before",
        "missed": "\n".join(told),
    }


def _points(lines: Sequence[Any], chosen: frozenset[int]) -> list[Any]:
    return [line.points for i, line in enumerate(lines) if i in chosen]
