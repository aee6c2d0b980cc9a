"""The report on a detection model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from ocr_finetune_trainer.evaluation.drawing import FALSE, FOUND, IGNORED, MISSED, draw_outlines
from ocr_finetune_trainer.evaluation.report.page import picture, render
from ocr_finetune_trainer.metrics.detection import match_page

if TYPE_CHECKING:
    from ocr_finetune_trainer.evaluation.detection import DetectedPage
    from ocr_finetune_trainer.evaluation.detection_breakdown import DetectionEvaluation

__all__ = ["detection_report"]

WORST = 40
_HEIGHT, _WIDTH = 520, 800

_TEMPLATE = """
{% macro figures(title, rows) %}
<table><caption>{{ title }}</caption><tr><th></th><th class="n">precision</th><th class="n">recall</th>
<th class="n">hmean</th></tr>
{% for name, row in rows.items() %}<tr><td>{{ name or "–" }}</td><td class="n">{{ row.precision|percent }}</td>
<td class="n">{{ row.recall|percent }}</td><td class="n">{{ row.hmean|percent }}</td></tr>{% endfor %}</table>
{% endmacro %}
<h1>{{ title }}</h1>
<table>{% for name, value in facts.items() %}<tr><th>{{ name }}</th><td>{{ value }}</td></tr>{% endfor %}</table>
<table><tr><th></th><th class="n">before</th><th class="n">after</th><th class="n">95 % interval</th></tr>
{% for row in rows %}<tr><td>{{ row.label }}</td><td class="n">{{ row.before }}</td><td class="n"><b>{{ row.after }}</b>
</td><td class="n">{{ row.interval }}</td></tr>{% endfor %}</table>
{% if verdict %}
<h2>Gate: {% if verdict.passed %}<span class="good">passed</span>{% else %}<span class="bad">not met</span>{% endif %}
</h2>
<ul>{% for line in verdict.failures %}<li class="bad">{{ line }}</li>{% endfor %}
{% for line in verdict.notes %}<li>{{ line }}</li>{% endfor %}</ul>
{% endif %}
<h2>Where it fails</h2>
{% if document.unusable %}<p class="bad">{{ document.unusable }} pages could not be used and are in none of these
figures; rejected.jsonl lists them.</p>{% endif %}
<div class="columns">{{ figures("By overlap asked for (IoU)", document.byIou) }}
{{ figures("By source", document.bySource) }}
{% if document.otherSizeRules %}{{ figures("Under other size rules", document.otherSizeRules) }}{% endif %}
<table><caption>By height of the text in pixels</caption><tr><th></th><th class="n">texts</th><th class="n">found</th></tr>
{% for name, row in document.bySize.items() %}<tr><td>{{ name }}</td><td class="n">{{ row.texts }}</td>
<td class="n">{{ row.recall|percent }}</td></tr>{% endfor %}</table></div>
{% if document.regressions.worse %}
<p>{{ document.regressions.worse }} texts that the base model found are missed now, on
{{ document.regressions.pages|length }} pages.</p>
{% endif %}
<h2>Worst pages</h2>
<p>{{ wrong }} of {{ document.samples }} pages have mistakes.{% if worst|length < wrong %} The worst {{ worst|length }};
all are in predictions.jsonl.{% endif %} Green: found. Red: missed. Blue: found where no text is. Grey: neither wanted nor
punished.</p>
{% for item in worst %}
<div class="card" style="max-width: 50rem">{{ item.image }}
<div>{{ item.missed }} missed, {{ item.extra }} too many</div><div class="note">{{ item.origin }} {{ item.problem }}</div>
</div>{% endfor %}
"""


def detection_report(
    evaluation: DetectionEvaluation,
    *,
    picture_of: Callable[[int], NDArray[np.uint8] | None],
    title: str,
    facts: Mapping[str, str],
    verdict: Mapping[str, Any],
    origin_of: Callable[[int], str] = str,
) -> str:
    """Writes the report as HTML.

    Args:
        evaluation: What was measured.
        picture_of: The picture of a page by its index, BGR; None if it has none.
        title: Title of the page.
        facts: What stands at the top: run, model, data, dates.
        verdict: `passed`, `failures` and `notes` of the gate; empty without a gate.
        origin_of: Where a page's labels stand.
    """
    document = evaluation.document
    every = evaluation.worst(len(evaluation.best.pages))
    return render(
        _TEMPLATE,
        title=title,
        facts=facts,
        verdict=verdict,
        document=document,
        rows=_table(document),
        wrong=len(every),
        worst=[_card(page, picture_of(page.index), origin_of(page.index)) for page in every[:WORST]],
    )


def _table(document: Mapping[str, Any]) -> list[dict[str, str]]:
    base, best, spans = document.get("base") or {}, document["best"], document["intervals"]
    return [
        {
            "label": name,
            "before": f"{base[name]:.2%}" if name in base else "–",
            "after": f"{best[name]:.2%}",
            "interval": f"{spans[name]['low']:.2%} – {spans[name]['high']:.2%}",
        }
        for name in ("hmean", "precision", "recall")
    ]


def _card(page: DetectedPage, image: NDArray[np.uint8] | None, origin: str) -> dict[str, Any]:
    counts = page.counts()
    return {
        "image": Markup('<span class="bad">no picture</span>')
        if image is None
        else picture(_drawn(page, image), height=_HEIGHT, width=_WIDTH),
        "missed": counts.truths - counts.matched,
        "extra": counts.found - counts.matched,
        "origin": origin,
        "problem": page.problem,
    }


def _drawn(page: DetectedPage, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    found = [region.points for region in page.found]
    pairs = match_page(page.truths, page.ignored, found).pairs
    hit_true, hit_found = {true for true, _ in pairs}, {other for _, other in pairs}
    truths = list(enumerate(zip(page.truths, page.ignored, strict=True)))
    image = draw_outlines(image, [p for _, (p, ignored) in truths if ignored], color=IGNORED)
    image = draw_outlines(image, [p for i, p in enumerate(found) if i not in hit_found], color=FALSE)
    image = draw_outlines(image, [p for i, p in enumerate(found) if i in hit_found], color=FOUND)
    missed = [p for i, (p, ignored) in truths if not ignored and i not in hit_true]
    return draw_outlines(image, missed, color=MISSED)
