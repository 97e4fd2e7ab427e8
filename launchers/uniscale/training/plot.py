"""A line plot as SVG: the loss over the steps; no library draws it, so that none is needed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from xml.sax.saxutils import escape

_WIDTH, _HEIGHT = 720, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 40, 44
_COLOURS = ("#2563eb", "#d97706", "#059669")
Points = Sequence[tuple[float, float]]


def svg(title: str, curves: Sequence[tuple[str, Points]]) -> str:
    """An SVG document of ``curves`` (name, points in rising order of x) over the training steps.

    Values that are no finite numbers are left out; without any, the axes alone are drawn.
    """
    shown = [(name, _finite(points)) for name, points in curves]
    every = [point for _, points in shown for point in points] or [(0.0, 0.0), (1.0, 1.0)]
    low_x, high_x = min(x for x, _ in every), max(x for x, _ in every)
    ticks_y = ticks(min(0.0, *(y for _, y in every)), max(y for _, y in every))
    ticks_x = [x for x in ticks(low_x, high_x) if low_x <= x <= high_x and x == int(x)]
    low_y, high_y = ticks_y[0], ticks_y[-1]

    def at(x: float, y: float) -> tuple[float, float]:
        across = (x - low_x) / ((high_x - low_x) or 1.0)
        up = (y - low_y) / ((high_y - low_y) or 1.0)
        width, height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
        return _LEFT + across * width, _HEIGHT - _BOTTOM - up * height

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        'font-family="sans-serif" font-size="12" fill="#374151">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>',
        f'<text x="{_LEFT}" y="22" font-size="14" fill="#111827">{escape(title)}</text>',
    ]
    for y in ticks_y:
        _, place = at(low_x, y)
        parts.append(
            f'<path d="M{_LEFT} {place:.1f}H{_WIDTH - _RIGHT}" stroke="#e5e7eb"/>'
            f'<text x="{_LEFT - 8}" y="{place + 4:.1f}" text-anchor="end">{y:g}</text>'
        )
    for x in ticks_x:
        place, _ = at(x, low_y)
        parts.append(
            f'<text x="{place:.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{x:g}</text>'
        )
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{_HEIGHT - 8}" text-anchor="middle">step</text>')
    for number, (name, points) in enumerate(shown):
        parts += _curve([at(x, y) for x, y in points], name, number)
    return "\n".join([*parts, "</svg>", ""])


def _finite(points: Points) -> list[tuple[float, float]]:
    return [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]


def _curve(points: list[tuple[float, float]], name: str, number: int) -> list[str]:
    colour = _COLOURS[number % len(_COLOURS)]
    place = _WIDTH - _RIGHT - 96 * (number + 1)
    legend = (
        f'<path d="M{place} 18h18" stroke="{colour}" stroke-width="2"/>'
        f'<text x="{place + 24}" y="22">{escape(name)}</text>'
    )
    if not points:
        return [legend]
    line = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    marks = [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{colour}"/>' for x, y in points]
    drawn = f'<path d="M{line}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
    return [legend, drawn, *(marks if len(points) <= 30 else ())]


def ticks(low: float, high: float) -> list[float]:
    """About five round numbers that span ``low`` to ``high``."""
    span = high - low or abs(high) or 1.0
    step = 10 ** math.floor(math.log10(span / 5))
    step *= next(one for one in (1, 2, 5, 10) if span / (step * one) <= 5)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(number * step, 12) for number in range(first, last + 1)]
