"""The body of the recognition report (Jinja2)."""

TEMPLATE = """
{% macro cards(items) %}
<div>{% for item in items %}
<div class="card">{{ item.image }}
<div class="text">{{ item.label }}</div><div class="text">{{ item.prediction }}</div>
{% if item.old is not none %}<div class="note">before: <span class="text">{{ item.old }}</span></div>{% endif %}
<div class="note">score {{ item.score }} · {{ item.origin }}{% if item.problem %} · {{ item.problem }}{% endif %}</div>
</div>{% endfor %}</div>
{% endmacro %}
{% macro groups(title, rows) %}
<table><caption>{{ title }}</caption><tr><th></th><th class="n">samples</th><th class="n">accuracy</th>
<th class="n">character errors</th></tr>
{% for name, row in rows.items() %}<tr><td>{{ name or "–" }}</td><td class="n">{{ row.samples }}</td>
<td class="n">{{ row.accuracy|percent }}</td><td class="n">{{ row.characterErrorRate|percent }}</td></tr>{% endfor %}
</table>
{% endmacro %}
<h1>{{ title }}</h1>
<table>{% for name, value in facts.items() %}<tr><th>{{ name }}</th><td>{{ value }}</td></tr>{% endfor %}</table>
<table><tr><th></th><th class="n">before</th><th class="n">after</th><th class="n">95 % interval</th></tr>
{% for row in rows %}<tr><td>{{ row.label }}</td><td class="n">{{ row.before }}</td>
<td class="n"><b>{{ row.after }}</b></td><td class="n">{{ row.interval }}</td></tr>{% endfor %}</table>
{% if verdict %}
<h2>Gate: {% if verdict.passed %}<span class="good">passed</span>{% else %}<span class="bad">not met</span>{% endif %}</h2>
<ul>{% for line in verdict.failures %}<li class="bad">{{ line }}</li>{% endfor %}
{% for line in verdict.notes %}<li>{{ line }}</li>{% endfor %}</ul>
{% endif %}
{% for section in sections %}{{ section }}{% endfor %}
{% if document.suggestions %}
<h2>What to add to the data</h2><ul>{% for line in document.suggestions %}<li>{{ line }}</li>{% endfor %}</ul>
{% endif %}
{% if document.outOfDictionary.characters %}
<h2>Characters the model does not know</h2>
<p>{{ document.outOfDictionary.samples }} samples have them and count as wrong:
<span class="text">{% for name, count in document.outOfDictionary.characters.items() %}{{ name }} ({{ count }}) {% endfor %}
</span></p>
{% endif %}
<h2>Where it fails</h2>
<div class="columns">{{ groups("By source", document.bySource) }}{{ groups("By length of the text", document.byLength) }}
{{ groups("By difficulty", document.byDifficulty) }}</div>
<h2>What it confuses</h2>
<div class="columns">
<table><caption>Most frequent</caption><tr><th>is</th><th>read as</th><th class="n">times</th></tr>
{% for row in document.confusions[:30] %}<tr><td class="text">{{ row.label or "nothing" }}</td>
<td class="text">{{ row.prediction or "nothing" }}</td><td class="n">{{ row.count }}</td></tr>{% endfor %}</table>
<table><caption>Characters, worst first</caption><tr><th></th><th class="n">in the set</th><th class="n">read</th>
<th class="n">right when read</th></tr>
{% for name, row in characters %}<tr><td class="text">{{ name }}</td><td class="n">{{ row.count }}</td>
<td class="n">{{ row.recall|percent }}</td><td class="n">{{ row.precision|percent }}</td></tr>{% endfor %}</table>
{% if document.clusters %}<table><caption>Errors of a kind</caption><tr><th>kind</th><th class="n">samples</th></tr>
{% for row in document.clusters %}<tr><td>{{ row.kind }}</td><td class="n">{{ row.samples }}</td></tr>{% endfor %}</table>
{% endif %}</div>
{% if matrix %}
<table class="matrix"><caption>Rows: what is there. Columns: what was read. · is nothing.</caption><tr><th></th>
{% for name in matrix.columns %}<th>{{ name }}</th>{% endfor %}</tr>
{% for row in matrix.rows %}<tr><th>{{ row.name }}</th>
{% for cell in row.cells %}
<td class="{{ 'good' if cell.right else 'bad' if cell.count else 'note' }}">{{ cell.count or "" }}</td>
{% endfor %}</tr>{% endfor %}</table>
{% endif %}
<h2>Can its scores be trusted?</h2>
<p>{% if document.calibration.threshold is not none %}Rejecting texts with a score under
<b>{{ "%.3f"|format(document.calibration.threshold) }}</b> keeps {{ document.calibration.thresholdCoverage|percent }} of the
pictures, of which {{ document.calibration.thresholdAccuracy|percent }} are right.{% else %}No threshold makes
{{ document.calibration.wantedAccuracy|percent }} of what is kept right.{% endif %}
{{ " " }}Scores are off by {{ document.calibration.expectedError|percent }} on average.</p>
<div class="columns">{{ curve(coverage, x="part of the pictures kept", y="accuracy of what is kept") }}
{{ curve(reliability, x="score", y="accuracy") }}</div>
{% if document.regressions.worse or document.regressions.better %}
<h2>What got worse</h2>
<p>{{ document.regressions.worse }} samples that the base model read are wrong now;
{{ document.regressions.better }} that it did not read are right now.
{% if worse|length < document.regressions.worse %}The first {{ worse|length }}:{% endif %}</p>
{{ cards(worse) }}
{% endif %}
{% if suspects %}
<h2>Labels that may be wrong</h2><p>The model is sure of another text, and is right elsewhere when it is so sure.</p>
{{ cards(suspects) }}
{% endif %}
<h2>Worst cases</h2>
<p>{{ wrong }} of {{ document.samples }} samples are wrong.{% if worst|length < wrong %} The worst {{ worst|length }};
all of them are in predictions.jsonl.{% endif %} Above: the label. Below: what was read.</p>
{{ cards(worst) }}
"""
