"""What the reports on tables and on turned lines share: figures before and after, the gate, the sources."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["HEAD", "rows_of"]

HEAD = """
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
<h2>Where it fails</h2>
{% if document.unusable %}<p class="bad">{{ document.unusable }} samples could not be used and count as wrong;
rejected.jsonl lists them.</p>{% endif %}
<table><caption>By source</caption><tr><th></th><th class="n">samples</th><th class="n">{{ rows[0].label }}</th></tr>
{% for name, row in document.bySource.items() %}<tr><td>{{ name or "–" }}</td><td class="n">{{ row.samples }}</td>
<td class="n">{{ row[main]|percent }}</td></tr>{% endfor %}</table>
{% if document.regressions.worse %}<p>{{ document.regressions.worse }} samples that the base model had right are wrong
now.</p>{% endif %}
"""


def rows_of(document: Mapping[str, Any], labels: Mapping[str, str]) -> list[dict[str, str]]:
    """The table of figures before and after.

    Args:
        document: `SampleEvaluation.document`.
        labels: What each figure is called, in order.
    """
    base, best, spans = document["base"], document["best"], document["intervals"]
    return [
        {
            "label": label,
            "before": f"{base[name] or 0.0:.2%}",
            "after": f"{best[name] or 0.0:.2%}",
            "interval": f"{spans[name]['low']:.2%} – {spans[name]['high']:.2%}" if name in spans else "",
        }
        for name, label in labels.items()
    ]
