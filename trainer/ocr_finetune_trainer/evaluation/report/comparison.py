"""The page that `ocrft compare --html` writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from ocr_finetune_api.model_table import Kind
from ocr_finetune_trainer.data.pictures import PictureError, decode
from ocr_finetune_trainer.evaluation.report.detection import LEGEND, drawn_page
from ocr_finetune_trainer.evaluation.report.page import picture, render
from ocr_finetune_trainer.evaluation.report.recognition import aligned

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ocr_finetune_trainer.evaluation.comparison import Comparison, Disagreement

__all__ = ["comparison_report", "shown"]

SHOWN = 200

_TEMPLATE = """
{% macro table(title, rows) %}
<h2>{{ title }}</h2>
{% if not rows %}<p>None.</p>{% else %}
<table><tr><th></th>{% for name in runs %}<th>{{ name }}</th>{% endfor %}</tr>
{% for name, row in rows.items() %}<tr><td>{{ name }}</td>
{% for run in runs %}<td>{{ row[run] }}</td>{% endfor %}</tr>{% endfor %}</table>{% endif %}

{% endmacro %}
<h1>{{ title }}</h1>
{{ table("What they reach", figures) }}
{% if differences %}<ul>{% for line in differences %}<li>{{ line }}</li>{% endfor %}</ul>{% endif %}
{{ table("Settings that differ", settings) }}
{{ table("Data", data) }}
<h2>Where they disagree</h2>
{% if not same_set %}<p class="bad">They were measured on different samples, so figures above are not comparable one by one,
and there is nothing to disagree on.</p>
{% else %}<p>{{ total }} samples{% if total > items|length %}, the first {{ items|length }} of them{% endif %}.</p>
{% if legend %}{{ legend }}{% endif %}
{% for item in items %}<div class="card{{ ' whole' if item.wide }}">{{ item.image }}<div class="text">{{ item.label }}</div>
{% for name, answer, right in item.answers %}<div><span class="note">{{ name }}</span>
<span class="text {{ 'good' if right else 'bad' }}">{{ answer }}</span></div>{% endfor %}
<div class="note">{{ item.origin }}</div></div>{% endfor %}{% endif %}
"""


def shown(value: Any) -> str:
    """A figure for people."""
    if value is None:
        return "–"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def comparison_report(comparison: Comparison) -> str:
    """Writes the comparison as HTML, with the pictures that runs disagree on."""
    figures = {
        name: {run: shown(value) for run, value in row.items()} for name, row in comparison.table("figures").items()
    }
    data = {name: {run: shown(value) for run, value in row.items()} for name, row in comparison.table("data").items()}
    items = comparison.disagreements
    return render(
        _TEMPLATE,
        title=" and ".join(run.label for run in comparison.runs),
        runs=[run.label for run in comparison.runs],
        figures=figures,
        settings=comparison.settings,
        data=data,
        differences=difference_lines(comparison),
        same_set=comparison.same_set,
        total=len(items),
        legend=LEGEND if comparison.runs[0].kind is Kind.DETECTION else "",
        items=[_card(comparison, item) for item in items[:SHOWN]],
    )


def difference_lines(comparison: Comparison) -> list[str]:
    """Each further run against the first, in sentences."""
    first = comparison.runs[0].label
    metric = comparison.metric
    return [
        f"{name}: {metric} {value.value:+.2%} against {first}, 95 % interval {value.low:+.2%} to {value.high:+.2%}"
        + ("" if value.low > 0 or value.high < 0 else ": within the noise")
        for name, value in comparison.differences.items()
    ]


def _card(comparison: Comparison, item: Disagreement) -> dict[str, Any]:
    pages = comparison.runs[0].kind is Kind.DETECTION
    answers = [
        (name, answer if pages else aligned(item.label, answer)[1], name in item.right)
        for name, answer in item.answers.items()
    ]
    try:
        image = decode(comparison.dataset.image(item.index))
    except PictureError:
        shown = Markup('<span class="bad">no picture</span>')
    else:
        shown = _pages(comparison, item.index, image) if pages else picture(image, height=160)
    return {"image": shown, "label": item.label, "answers": answers, "origin": item.origin, "wide": pages}


def _pages(comparison: Comparison, index: int, image: NDArray[np.uint8]) -> Markup:
    """The page once for each run, with what that run found."""
    sample = comparison.dataset[index]
    figures = []
    for run in comparison.runs:
        found = [region["points"] for region in run.predictions[index, False]["found"]]
        drawn = drawn_page(image, sample.polygons or (), sample.ignored, found)
        figures.append(
            Markup("<figure>{}<figcaption class=note>{}</figcaption></figure>").format(
                picture(drawn, height=420, width=560), run.label
            )
        )
    return Markup('<div class="columns">{}</div>').format(Markup("").join(figures))
