"""The report on a detection model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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

__all__ = ["LEGEND", "detection_report", "drawn_page"]

WORST = 40
_HEIGHT, _WIDTH = 520, 800

LEGEND = Markup(
    '<p>In the pictures: <span style="color: #28a03c">green</span>: found. <span style="color: #dc2828">Red</span>: '
    'missed. <span style="color: #1478e6">Blue</span>: found where no text is. <span style="color: #969696">Grey</span>: '
    "neither wanted nor punished.</p>"
)

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
{% for section in sections %}{{ section }}{% endfor %}
{% if document.suggestions %}
<h2>What to do about the data</h2><ul>{% for line in document.suggestions %}<li>{{ line }}</li>{% endfor %}</ul>
{% endif %}
<h2>Where it fails</h2>
{% if document.unusable %}<p class="bad">{{ document.unusable }} pages could not be used and are in none of these
figures; rejected.jsonl lists them.</p>{% endif %}
<div class="columns">{{ figures("By overlap asked for (IoU)", document.byIou) }}
{{ figures("By source", document.bySource) }}
{% if document.otherSizeRules %}{{ figures("Under other size rules", document.otherSizeRules) }}{% endif %}
<table><caption>By height of the text in pixels</caption><tr><th></th><th class="n">texts</th><th class="n">found</th></tr>
{% for name, row in document.bySize.items() %}<tr><td>{{ name }}</td><td class="n">{{ row.texts }}</td>
<td class="n">{{ row.recall|percent }}</td></tr>{% endfor %}</table>
{% if document.errorKinds %}<table><caption>Mistakes by kind</caption><tr><th>kind</th><th class="n">texts</th></tr>
{% for row in document.errorKinds %}<tr><td>{{ row.kind }}</td><td class="n">{{ row.texts }}</td></tr>{% endfor %}</table>
{% endif %}</div>
{% macro cards(items) %}{% for item in items %}
<div class="card wide">{{ item.image }}
<div>{{ item.missed }} missed, {{ item.extra }} too many{% if item.note %}; {{ item.note }}{% endif %}</div>
<div class="note">{{ item.origin }} {{ item.problem }}</div></div>{% endfor %}{% endmacro %}
{{ legend }}
{% if document.regressions.worse %}
<h2>What got worse</h2>
<p>{{ document.regressions.worse }} texts that the base model found are missed now, on
{{ document.regressions.pages|length }} pages.
{% if worse|length < document.regressions.pages|length %} The first {{ worse|length }} of these pages:{% endif %}</p>
{{ cards(worse) }}
{% endif %}
{% if unlabelled %}
<h2>Labels that may be missing</h2>
<p>The model is sure of texts where no label is, on {{ document.likelyUnlabelled|length }} pages.
{% if unlabelled|length < document.likelyUnlabelled|length %} The first {{ unlabelled|length }}:{% endif %}</p>
{{ cards(unlabelled) }}
{% endif %}
<h2>Worst pages</h2>
<p>{{ wrong }} of {{ document.samples }} pages have mistakes.{% if worst|length < wrong %} The worst {{ worst|length }};
all are in predictions.jsonl.{% endif %}</p>
{{ cards(worst) }}
"""


def detection_report(
    evaluation: DetectionEvaluation,
    *,
    picture_of: Callable[[int], NDArray[np.uint8] | None],
    title: str,
    facts: Mapping[str, str],
    verdict: Mapping[str, Any],
    origin_of: Callable[[int], str] = str,
    sections: Sequence[Markup] = (),
) -> str:
    """Writes the report as HTML.

    Args:
        evaluation: What was measured.
        picture_of: The picture of a page by its index, BGR; None if it has none.
        title: Title of the page.
        facts: What stands at the top: run, model, data, dates.
        verdict: `passed`, `failures` and `notes` of the gate; empty without a gate.
        origin_of: Where a page's labels stand.
        sections: Further parts.
    """
    document = evaluation.document
    every = evaluation.worst(len(evaluation.best.pages))

    def cards(pages: Sequence[DetectedPage], notes: Mapping[int, str] | None = None) -> list[dict[str, Any]]:
        return [
            _card(page, picture_of(page.index), origin_of(page.index), note=(notes or {}).get(page.index, ""))
            for page in pages[:WORST]
        ]

    return render(
        _TEMPLATE,
        title=title,
        facts=facts,
        verdict=verdict,
        document=document,
        sections=sections,
        legend=LEGEND,
        rows=_table(document),
        wrong=len(every),
        worse=cards(
            evaluation.worse(),
            {index: f"{len(texts)} of the missed found before" for index, texts in evaluation.lost.items()},
        ),
        unlabelled=cards(
            evaluation.unlabelled(),
            {index: f"{len(page.unlabelled)} of them surely a text" for index, page in evaluation.mistakes.items()},
        ),
        worst=cards(every),
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


def _card(page: DetectedPage, image: NDArray[np.uint8] | None, origin: str, *, note: str) -> dict[str, Any]:
    counts = page.counts()
    return {
        "image": Markup('<span class="bad">no picture</span>')
        if image is None
        else picture(
            drawn_page(image, page.truths, page.ignored, [region.points for region in page.found]),
            height=_HEIGHT,
            width=_WIDTH,
        ),
        "missed": counts.truths - counts.matched,
        "extra": counts.found - counts.matched,
        "origin": origin,
        "note": note,
        "problem": page.problem,
    }


def drawn_page(
    image: NDArray[np.uint8], truths: Sequence[Any], ignored: Sequence[bool], found: Sequence[Any]
) -> NDArray[np.uint8]:
    """The picture of a page, BGR, with its true and found outlines, each (K, 2), in the report's colours."""
    pairs = match_page(truths, ignored, found).pairs
    hit_true, hit_found = {true for true, _ in pairs}, {other for _, other in pairs}
    marked = list(enumerate(zip(truths, ignored, strict=True)))
    image = draw_outlines(image, [p for _, (p, skip) in marked if skip], color=IGNORED)
    image = draw_outlines(image, [p for i, p in enumerate(found) if i not in hit_found], color=FALSE)
    image = draw_outlines(image, [p for i, p in enumerate(found) if i in hit_found], color=FOUND)
    missed = [p for i, (p, skip) in marked if not skip and i not in hit_true]
    return draw_outlines(image, missed, color=MISSED)
