"""Draws the chart's dashboards from a real Prometheus, as Grafana would lay them out: there is no Grafana to be had here.

A panel is drawn from its own JSON: place, title, unit, queries, legends. What is looked at is whether the curves say what
the title promises, in the right unit, and can be told apart; colours and fonts are not Grafana's.
"""

from __future__ import annotations

import html
import json
import math
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Series = list[dict[str, Any]]

_COLUMN, _ROW, _GAP = 56, 34, 6
_COLOURS = (
    "#4c9be8",
    "#f2a541",
    "#58b368",
    "#d65d5d",
    "#9b7ede",
    "#5bc0be",
    "#e07bb5",
    "#a3a948",
    "#8d8d8d",
    "#c98f4f",
)
_MOST_LEGENDS = 8


def draw(board: Path, *, ask: Callable[[str], Series]) -> str:
    """Returns a page with all panels of a dashboard.

    Args:
        board: The dashboard's JSON.
        ask: Puts in what the dashboard's variables stand for, and returns the series of a query over time.
    """
    document = json.loads(board.read_text())
    panels = [_panel(panel, ask=ask) for panel in document["panels"]]
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in document["panels"]) * (_ROW + _GAP)
    return (
        "<meta charset=utf-8><body style='margin:8px;background:#111217;color:#ddd;font:12px sans-serif'>"
        f"<h3>{html.escape(document['title'])}</h3><div style='position:relative;height:{height}px'>{''.join(panels)}</div>"
    )


def _panel(panel: dict[str, Any], *, ask: Callable[[str], Series]) -> str:
    place = panel["gridPos"]
    width, height = place["w"] * _COLUMN - _GAP, place["h"] * (_ROW + _GAP) - _GAP
    style = (
        f"position:absolute;left:{place['x'] * _COLUMN}px;top:{place['y'] * (_ROW + _GAP)}px;width:{width}px;"
        f"height:{height}px;overflow:hidden"
    )
    title = f"<b>{html.escape(panel['title'])}</b>"
    if panel["type"] == "row":
        return f"<div style='{style};line-height:{height}px'>{title}</div>"
    series = [
        (_legend(target.get("legendFormat", ""), one["metric"]), _points(one))
        for target in panel["targets"]
        for one in ask(target["expr"])
    ]
    unit = panel.get("fieldConfig", {}).get("defaults", {}).get("unit", "short")
    inside = _numbers(series, unit) if panel["type"] == "stat" else _curves(series, unit, width, height - 20)
    head = f"<div style='padding:3px 6px'>{title}</div>"
    return f"<div style='{style};background:#181b1f;border-radius:3px'>{head}{inside}</div>"


def points_of(series: Series) -> int:
    """Returns how many points there are to see: no numbers are none."""
    return sum(len(_points(one)) for one in series)


def _points(one: dict[str, Any]) -> list[tuple[float, float]]:
    return [(float(at), float(value)) for at, value in one["values"] if math.isfinite(float(value))]


def _legend(pattern: str, labels: dict[str, str]) -> str:
    if pattern in ("", "__auto"):
        return ", ".join(f"{key}={value}" for key, value in labels.items() if key != "__name__") or "value"
    return re.sub(r"{{\s*(\w+)\s*}}", lambda found: labels.get(found[1], ""), pattern)


def _numbers(series: list[tuple[str, list[tuple[float, float]]]], unit: str) -> str:
    now = max((points[-1][0] for _, points in series if points), default=0.0)
    shown = [
        f"{_value(points[-1][1], unit)} <small>{html.escape(name)}</small>"
        for name, points in series
        if points and points[-1][0] == now
    ]
    return f"<div style='font-size:22px;padding:10px'>{'<br>'.join(shown) or 'No data'}</div>"


def _curves(series: list[tuple[str, list[tuple[float, float]]]], unit: str, width: int, height: int) -> str:
    series = [(name, points) for name, points in series if points]
    if not series:
        return "<div style='padding:30px;color:#888'>No data</div>"
    times = [at for _, points in series for at, _ in points]
    values = [value for _, points in series for _, value in points]
    low, high = min(*values, 0.0), max(values) or 1.0
    begin, end = min(times), max(times)
    legends = min(len(series), _MOST_LEGENDS)
    plot = height - 18 - 14 * math.ceil(legends / 3)

    def x(at: float) -> float:
        return 60 + (at - begin) / max(end - begin, 1) * (width - 70)

    def y(value: float) -> float:
        return 6 + (high - value) / max(high - low, 1e-12) * (plot - 12)

    parts = [f"<svg width={width} height={height}>"]
    for step in range(5):
        value = low + (high - low) * step / 4
        parts.append(
            f"<line x1=60 x2={width - 10} y1={y(value):.1f} y2={y(value):.1f} stroke=#333 />"
            f"<text x=56 y={y(value) + 4:.1f} fill=#999 font-size=10 text-anchor=end>{_value(value, unit)}</text>"
        )
    for number, (name, points) in enumerate(series):
        colour = _COLOURS[number % len(_COLOURS)]
        path = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in points)
        parts.append(f"<polyline points='{path}' fill=none stroke={colour} stroke-width=1.5 />")
        if number < _MOST_LEGENDS:
            left, top = 10 + number % 3 * (width - 20) / 3, plot + 14 + number // 3 * 14
            parts.append(
                f"<rect x={left} y={top - 8} width=9 height=9 fill={colour} />"
                f"<text x={left + 13} y={top} fill=#ccc font-size=10>"
                f"{html.escape(name)} {_value(points[-1][1], unit)}</text>"
            )
    return "".join([*parts, "</svg>"])


def _value(value: float, unit: str) -> str:
    if unit == "percentunit":
        return f"{value * 100:.3g} %"
    if unit == "bytes":
        for prefix in ("B", "KiB", "MiB", "GiB"):
            if abs(value) < 1024 or prefix == "GiB":
                return f"{value:.3g} {prefix}"
            value /= 1024
    if unit == "s":
        return f"{value * 1000:.3g} ms" if abs(value) < 1 else f"{value:.3g} s"
    return f"{value:.3g}" + {"ops": " /s", "reqps": " /s"}.get(unit, "")
