"""What all reports share: the frame of the page, its style, and pictures and curves as parts of the text."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray

__all__ = ["curve", "picture", "render"]

_FRAME = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
:root { color-scheme: light dark; --line: #8885; --good: #1a7f37; --bad: #cf222e; --soft: #8882; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 72rem; padding: 1rem 1.5rem 4rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; border-bottom: 1px solid var(--line); }
table { border-collapse: collapse; margin: .6rem 0; } caption { text-align: left; font-weight: 600; white-space: nowrap; }
th, td { border-bottom: 1px solid var(--line); padding: .25rem .7rem .25rem 0; text-align: left; vertical-align: top; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
.good { color: var(--good); } .bad { color: var(--bad); } .note { opacity: .75; }
.card { display: inline-block; vertical-align: top; margin: .3rem; padding: .5rem; border: 1px solid var(--line);
  border-radius: 6px; max-width: 26rem; overflow-wrap: anywhere; }
.card.whole { max-width: 100%; } .card.whole img { max-height: 27rem; } figure { margin: 0; }
.card.wide { max-width: 50rem; } .card.wide img { max-height: 33rem; }
.card img { max-width: 100%; max-height: 12rem; image-rendering: auto; background: #fff; display: block; }
.text { font-family: ui-monospace, "Noto Sans Mono CJK SC", monospace; white-space: pre-wrap; }
.text b { color: var(--bad); background: var(--soft); } del { color: var(--bad); }
.matrix td { text-align: center; padding: .1rem .35rem; font-variant-numeric: tabular-nums; }
.columns { display: flex; flex-wrap: wrap; align-items: flex-start; gap: 0 3rem; }
svg { max-width: 100%; }
</style></head><body>
{{ body }}
</body></html>
"""


def render(template: str, *, title: str, **values: Any) -> str:
    """Renders a page.

    Args:
        template: Jinja2 source of the body; every value in it is escaped.
        title: Title of the page.
        values: What the template uses.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["percent"] = lambda value: "–" if value is None else f"{value:.2%}"
    environment.globals["curve"] = curve
    body = environment.from_string(template).render(title=title, **values)
    return environment.from_string(_FRAME).render(title=title, body=Markup(body))  # noqa: S704 - rendered with escaping


def picture(image: NDArray[np.uint8], *, height: int = 64, width: int = 480) -> Markup:
    """A picture, uint8 (h, w, 3) BGR, as an `img` element that holds its bytes; shrunk to fit, never enlarged."""
    scale = min(1.0, height / image.shape[0], width / image.shape[1])
    if scale < 1.0:
        size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    done, content = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 85])
    data = base64.b64encode(content.tobytes()).decode() if done else ""
    return Markup('<img alt="" loading="lazy" src="data:image/jpeg;base64,{}">').format(data)


def curve(points: Sequence[tuple[float, float]], *, x: str, y: str, least: float = 0.0) -> Markup:
    """A line through points of [0, 1]², as an SVG element.

    Args:
        points: (x, y) in order of x.
        x: What the horizontal axis is.
        y: What the vertical axis is.
        least: Where the vertical axis begins.
    """
    width, height, left, bottom = 420, 220, 44, 34

    def at(px: float, py: float) -> str:
        top = (py - least) / max(1 - least, 1e-9)
        return f"{left + px * (width - left - 8):.1f},{height - bottom - top * (height - bottom - 10):.1f}"

    line = " ".join(at(px, max(py, least)) for px, py in points)
    return Markup(
        '<svg viewBox="0 0 {w} {h}" width="{w}" height="{h}" role="img" aria-label="{y} over {x}">'
        '<polyline points="{axis}" fill="none" stroke="currentColor" opacity=".4"/>'
        '<polyline points="{line}" fill="none" stroke="#0969da" stroke-width="2"/>'
        '<text x="{mid}" y="{base}" font-size="12" fill="currentColor">{x}</text>'
        '<text x="2" y="14" font-size="12" fill="currentColor">1</text>'
        '<text x="2" y="{low}" font-size="12" fill="currentColor">{least}</text>'
        '<text x="50" y="24" font-size="12" fill="currentColor">{y}</text></svg>'
    ).format(
        w=width,
        h=height,
        x=x,
        y=y,
        axis=f"{at(0, 1)} {at(0, least)} {at(1, least)}",
        line=line,
        mid=width // 2,
        base=height - 8,
        low=height - bottom,
        least=f"{least:g}",
    )
