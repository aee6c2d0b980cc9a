"""The model card: what the model is, what it was made from, what it can do, and how to use it."""

from __future__ import annotations

import importlib.metadata
import platform
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, StrictUndefined

from ocr_finetune_api.model_table import Kind, lookup

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ocr_finetune_api.run_config import RunConfig

__all__ = ["model_card", "versions"]

_PACKAGES = ("ocr-finetune", "paddlepaddle", "paddleocr", "paddlex", "paddle2onnx", "onnx", "onnxruntime", "numpy")

_CARD = """{% macro row(name, check) -%}
| {{ name }} | {{ "%.4f"|format(check.metrics[metric]) }} | {{ check.different }} of {{ check.samples }} {# -#}
| {{ "%.1f"|format(check.picturesPerSecond) }} | {{ "%.2f"|format(check.bytes / 1048576) }} |
{%- endmacro %}
# {{ run }}

{{ purpose }}, fine-tuned from {{ base }}.

| | |
|---|---|
| model | {{ model }} |
| served as | {{ serving_name }} |
| made by | ocr-finetune {{ version }} |
| training step | {{ step }} |
| data | {{ data }} |
| licence of the architecture and official weights | Apache-2.0 (PaddleOCR) |
| licence of the training data | that of its owner: not known to this program |

## What it reaches

On the {{ set_name }} set{% if optimistic %}, which chose this checkpoint: the figures are optimistic{% else %}, which
training never saw{% endif %}.

| metric | before | after |
|---|---|---|
{% for name, before, after in metrics %}
| {{ name }} | {{ before }} | {{ after }} |
{% endfor %}

## Formats

Each was loaded again after writing and measured on the same set.

| format | {{ metric }} | results that differ | pictures/s on the exporting machine | MiB |
|---|---|---|---|---|
{% for name, check in checks.items() %}
{{ row(name, check) }}
{% endfor %}

{% if notes %}
{% for note in notes %}
- {{ note }}
{% endfor %}

{% endif %}
## How to use it

{{ snippets }}

## How it was made

```yaml
{{ settings }}```

Versions: {{ versions }}, Python {{ python }}.
"""


def versions() -> dict[str, str]:
    """Versions of the packages that an export depends on."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def model_card(
    config: RunConfig,
    *,
    step: int,
    data: str,
    base: str,
    evaluation: Mapping[str, Any],
    checks: Mapping[str, Mapping[str, Any]],
    metric: str,
    snippets: str,
    notes: list[str],
) -> str:
    """Writes the card as Markdown.

    Args:
        config: The run.
        step: Step of the checkpoint.
        data: The data sets in words, with their hashes.
        base: What it was made from, in words.
        evaluation: Metrics of the evaluation: `base`, `best`, `optimistic`.
        checks: Each format's check.
        metric: The metric that formats are compared by.
        snippets: How to use it, Markdown.
        notes: What a person should know.
    """
    import yaml

    spec = config.spec
    info = lookup(spec.model.name)
    before, best = evaluation.get("base") or {}, evaluation.get("best") or {}
    # Without autoescaping: this is Markdown, and no browser reads it as HTML.
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)  # noqa: S701
    installed = versions()
    kept = {"model", "dataset", "training", "evaluation", "export"}
    settings = spec.model_dump(mode="json", by_alias=True, include=kept, exclude_defaults=True)
    return environment.from_string(_CARD).render(
        run=config.run.name,
        purpose=_purpose(info.kind),
        base=base,
        model=info.name,
        serving_name=info.serving_name,
        step=step,
        data=data,
        set_name="validation" if evaluation.get("optimistic") else "test",
        optimistic=bool(evaluation.get("optimistic")),
        metrics=[
            (name, _shown(before.get(name)), _shown(value))
            for name, value in best.items()
            if isinstance(value, float | int)
        ],
        metric=metric,
        checks=checks,
        notes=notes,
        snippets=snippets,
        settings=yaml.safe_dump(settings, sort_keys=False, allow_unicode=True),
        version=installed["ocr-finetune"],
        versions=", ".join(f"{name} {version}" for name, version in installed.items()),
        python=platform.python_version(),
    )


def _purpose(kind: Kind) -> str:
    return {
        Kind.RECOGNITION: "Reads lines of text",
        Kind.DETECTION: "Finds text on pages",
        Kind.TABLE: "Reads the structure of tables",
        Kind.ORIENTATION: "Tells whether a line stands on its head",
    }[kind]


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
