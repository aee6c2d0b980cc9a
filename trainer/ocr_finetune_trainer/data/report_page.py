"""The data report as one HTML page that needs nothing else: no script, no font, no picture from elsewhere."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from ocr_finetune_trainer.data.pictures import PictureError, decode, encode

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ocr_finetune_trainer.data.store import Sample

__all__ = ["render"]

_THUMBNAIL_HEIGHT = 48
_THUMBNAIL_WIDTH = 420
_PAGE_SIDE = 260
_LEARNT, _LEFT_OUT = (60, 140, 0), (0, 120, 240)  # BGR, of the outlines on pages

_TITLES = {
    "contradicting": "Same picture, different labels",
    "mislabelled": "Label and width don't fit",
    "tooLong": "Label too long to be read",
    "duplicate": "Same as another one, or as good as",
    "blank": "Next to nothing to see",
    "tiny": "Tiny",
    "upright": "Upright",
    "withoutBoxes": "Pages without boxes",
}

_TEMPLATE = """\
<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Data report: {{ r.model }}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
 body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem;color:#1d2330;background:#fff}
 h1{font-size:1.6rem} h2{font-size:1.2rem;margin-top:2.2rem;border-bottom:1px solid #d9dde6}
 table{border-collapse:collapse} td,th{padding:.2rem .8rem .2rem 0;text-align:left;vertical-align:top}
 td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
 .error{color:#b3261e;font-weight:600} .warning{color:#8a5a00} .note{color:#44506a}
 .pictures{display:flex;flex-wrap:wrap;gap:.8rem} figure{margin:0;max-width:26rem} figcaption{font-size:.85rem}
 figure img{border:1px solid #d9dde6;max-width:100%} .place{color:#6b7690;font-size:.75rem;overflow-wrap:anywhere}
 .charts{display:flex;flex-wrap:wrap;gap:1.5rem} .chars{font-size:1.05rem;overflow-wrap:anywhere}
 @media (prefers-color-scheme:dark){body{background:#14171f;color:#e4e8f1} .warning{color:#e0b35a}
 .error{color:#ff8a80} .note,.place{color:#98a3bd} h2{border-color:#333a4a}}
</style></head><body>
<h1>Data report</h1>
<p>{{ r.kind }} with {{ r.model }}</p>
<h2>What to know</h2>
{% if r.advice %}<ul>{% for a in r.advice %}<li class="{{ a.level }}">{{ a.text }}</li>{% endfor %}</ul>
{% else %}<p>Nothing stands out.</p>{% endif %}
<h2>Sources</h2>
<table><tr><th>source</th><th>layout</th><th class="n">labelled</th><th class="n">usable</th>
<th>recognised by</th></tr>
{% for s in r.sources %}<tr><td>{{ s.name }}<div class="place">{{ s.uri }}</div></td>
<td>{{ s.format or "not read" }}</td><td class="n">{{ s.records }}</td>
<td class="n">{{ s.usable }}</td><td>{{ s.reason }}</td></tr>{% endfor %}</table>
<h2>Splits</h2>
<table><tr><th>split</th><th class="n">samples</th><th>by source</th></tr>
{% for name, count in r.splits.items() %}<tr><td>{{ name }}</td><td class="n">{{ count }}</td>
<td>{% for source, n in r.bySource[name].items() %}{{ source }} {{ n }} {% endfor %}</td></tr>{% endfor %}</table>
<p>{{ "The data set's own split is kept." if r.splitGiven else "Split by group: what looks the same is on one side."
}}</p>
{% if r.tables is defined %}<h2>Tables</h2><table><tr><th></th><th class="n">least</th><th class="n">median</th>
<th class="n">most</th></tr>{% for name in ("rows", "columns", "tokens") %}<tr><td>{{ name }}</td>
<td class="n">{{ r.tables[name].least }}</td><td class="n">{{ r.tables[name].median }}</td>
<td class="n">{{ r.tables[name].most }}</td></tr>{% endfor %}</table>
<p>{{ r.tables.cells }} cells: {{ r.tables.emptyCells }} empty, {{ r.tables.cellsWithoutPlace }} with text but no usable
box. {{ r.tables.withoutBoxes }} tables without any box, {{ r.tables.withoutHead }} without a head,
{{ r.tables.ragged }} with rows of different widths. Spans:
{% for token, n in r.tables.spans.items() %}{{ token }} {{ n }}{{ ", " if not loop.last }}{% else %}none{% endfor %}.</p>
{% endif %}<h2>Examples</h2>
{% if r.kind != "recognition" %}<p>Outlines of what is learnt are green, of what is left out orange.</p>{% endif %}
{{ figures(r.examples) }}
{% for name, group in r.suspects.items() if group.count %}
<h2>{{ titles[name] }} ({{ group.count }})</h2>{{ figures(group.samples) }}{% endfor %}
{% if r.duplicates.leaks %}<h2>Across splits ({{ r.duplicates.acrossSplits }})</h2>
{% for pair in r.duplicates.leaks[:12] %}{{ figures(pair) }}{% endfor %}{% endif %}
<h2>Sizes</h2><div class="charts">
{% for name in ("width", "height", "ratio", "boxes") if name in r.sizes %}{{ chart(r.sizes[name], name) }}{% endfor %}
{% if r.labels %}{{ chart(r.labels.length, "characters a label") }}{% endif %}</div>
{% if r.characters %}<h2>Characters</h2>
<p>{{ r.characters.distinct }} different ones; the dictionary has {{ r.characters.dictionary.size }}
({{ r.characters.dictionary.mode }}{% if r.characters.dictionary.new %}, {{ r.characters.dictionary.new|length }} new
{% endif %}), of which {{ r.characters.dictionary.neverSeen }} are never seen here.</p>
{% for title, key in (("Rare in training", "rare"), ("Only in the test set", "onlyInTest"),
 ("Only in the validation set", "onlyInValidation"), ("Not in the dictionary", "notInDictionary")) %}
{% if r.characters[key] %}<p><b>{{ title }} ({{ r.characters[key]|length }}):</b>
<span class="chars">{{ r.characters[key]|join(" ") }}</span></p>{% endif %}{% endfor %}
<details><summary>All characters with counts</summary>
<table><tr><th>character</th><th class="n">train</th><th class="n">validation</th><th class="n">test</th></tr>
{% for c, a, b, d in r.characters.counts %}<tr><td>{{ c if c != " " else "space" }}</td><td class="n">{{ a }}</td>
<td class="n">{{ b }}</td><td class="n">{{ d }}</td></tr>{% endfor %}</table></details>{% endif %}
{% if r.changedLabels.examples %}<h2>Changed labels</h2>{% for change, pairs in r.changedLabels.examples.items() %}
<p><b>{{ change }}</b> ({{ r.changedLabels.counts[change] }}):
{% for before, after in pairs %}<code>{{ before }}</code> → <code>{{ after }}</code>{{ ", " if not loop.last }}
{% endfor %}</p>{% endfor %}{% endif %}
{% if r.choices %}<h2>Chosen for training</h2><table>{% for c in r.choices %}
<tr><td>{{ c.name }}</td><td>{{ c.value }}</td><td>{{ c.reason }}</td></tr>{% endfor %}</table>{% endif %}
{% if r.problems %}<h2>Problems ({{ r.problems|length }})</h2><details open><summary>All of them</summary>
<table>{% for p in r.problems %}<tr><td>{{ p.source }}</td><td>{{ p.place }}</td><td>{{ p.what }}</td><td>{{ p.hint
}}</td>
</tr>{% endfor %}</table></details>{% endif %}
</body></html>
"""


def render(report: dict[str, Any], *, stored: Callable[[int], Sample], pages: bool) -> str:
    """Makes the page.

    Args:
        report: What `report.build` gave.
        stored: Gives a sample by its number.
        pages: Whether pictures are pages, which are shown smaller.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(_TEMPLATE)

    def figures(samples: Sequence[dict[str, Any]]) -> Markup:
        return Markup("<div class=pictures>{}</div>").format(
            Markup("").join(_figure(sample, stored, pages=pages) for sample in samples)
        )

    shown = {**report, "labels": report.get("labels"), "characters": report.get("characters")}
    return template.render(r=shown, figures=figures, chart=_chart, titles=_TITLES)


def _figure(sample: dict[str, Any], stored: Callable[[int], Sample], *, pages: bool) -> Markup:
    try:
        content = encode(_drawn(stored(sample["id"]), pages=pages), lossless=False)
        image = Markup('<img alt="" src="data:image/jpeg;base64,{}">').format(base64.b64encode(content).decode())
    except PictureError as error:
        image = Markup("<em>{}</em>").format(str(error))
    return Markup('<figure>{}<figcaption>{} <span class="place">{} {}x{} {}</span></figcaption></figure>').format(
        image, sample["text"], sample["split"], sample["width"], sample["height"], sample["place"]
    )


def _drawn(sample: Sample, *, pages: bool) -> NDArray[np.uint8]:
    """A sample at the size of the report, with the outlines of its texts or cells."""
    picture = _small(decode(sample.image), pages=pages)
    scale = np.array([picture.shape[1] / sample.width, picture.shape[0] / sample.height])
    for outline, left_out in zip(sample.polygons or (), sample.ignored, strict=True):
        if len(outline):  # a table's cell may have no known place
            corners = [np.round(outline * scale).astype(np.int32)]
            cv2.polylines(
                picture, corners, isClosed=True, color=_LEFT_OUT if left_out else _LEARNT, lineType=cv2.LINE_AA
            )
    return picture


def _small(picture: NDArray[np.uint8], *, pages: bool) -> NDArray[np.uint8]:
    height, width = picture.shape[:2]
    scale = _PAGE_SIDE / max(height, width) if pages else _THUMBNAIL_HEIGHT / height
    scale = min(scale, _THUMBNAIL_WIDTH / width, 4.0)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _chart(histogram: dict[str, list[float]], title: str) -> Markup:
    """A histogram as SVG."""
    counts, edges = histogram["counts"], histogram["edges"]
    if not counts:
        return Markup("")
    width, height, top = 300, 110, max(*counts, 1)
    step = width / len(counts)
    bar = Markup('<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"><title>{:g} to {:g}: {}</title></rect>')
    bars = Markup("").join(
        bar.format(
            i * step,
            height - count / top * height,
            max(step - 1, 0.5),
            count / top * height,
            edges[i],
            edges[i + 1],
            int(count),
        )
        for i, count in enumerate(counts)
    )
    return Markup(
        '<div><b>{}</b><br><svg width="{}" height="{}" viewBox="0 0 {} {}" role="img"><g fill="#4a6fa5">{}</g>'
        '<g font-size="11" fill="currentColor"><text x="0" y="{}">{:g}</text>'
        '<text x="{}" y="{}" text-anchor="end">{:g}</text></g></svg></div>'
    ).format(title, width, height + 16, width, height + 16, bars, height + 13, edges[0], width, height + 13, edges[-1])
