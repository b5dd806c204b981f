"""Plots as SVG, written by hand: bars and lines are all that the figures need."""

from __future__ import annotations

import math
from html import escape

from benchmarks.figures import Bars, Lines

WIDTH, LEFT, RIGHT, TOP = 720, 80, 150, 40
BAR, GAP, PLOT_HEIGHT = 26, 12, 240
COLOURS = ("#2f6f9f", "#c0652a", "#4d8a4d", "#8a5a9c", "#777777")


def render(plots: list[Bars | Lines]) -> str:
    """One picture, its plots below each other."""
    parts: list[str] = []
    height = 0
    for plot in plots:
        drawn, needed = _bars(plot) if isinstance(plot, Bars) else _lines(plot)
        parts.append(f'<g transform="translate(0,{height})">{"".join(drawn)}</g>')
        height += needed
    style = "text{font:13px sans-serif;fill:#222} .t{font-weight:bold}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}">'
        f'<style>{style}</style><rect width="100%" height="100%" fill="#fff"/>'
        f"{''.join(parts)}</svg>\n"
    )


def _text(x: float, y: float, words: str, anchor: str = "start", kind: str = "") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}">'
        f"{escape(words)}</text>"
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _bars(plot: Bars) -> tuple[list[str], int]:
    left = 200
    most = max((value for _, value in plot.values), default=0) or 1
    drawn = [_text(16, 24, plot.title, kind="t")]
    for number, (label, value) in enumerate(plot.values):
        y = TOP + number * (BAR + GAP)
        length = (WIDTH - left - RIGHT) * value / most
        colour = COLOURS[number % len(COLOURS)]
        drawn.append(_text(left - 10, y + BAR * 0.68, label, "end"))
        drawn.append(
            f'<rect x="{left}" y="{y}" width="{length:.1f}" height="{BAR}" fill="{colour}"/>'
        )
        drawn.append(_text(left + length + 8, y + BAR * 0.68, f"{_number(value)} {plot.unit}"))
    return drawn, TOP + len(plot.values) * (BAR + GAP) + 16


def _lines(plot: Lines) -> tuple[list[str], int]:
    points = [point for line in plot.lines.values() for point in line]
    if not points:
        return [_text(16, 24, plot.title, kind="t")], TOP
    xs = [_x(plot, x) for x, _ in points]
    low, high = min(xs), max(xs)
    most = max(y for _, y in points) * 1.1 or 1
    width, bottom = WIDTH - LEFT - RIGHT, TOP + PLOT_HEIGHT

    def place(x: float, y: float) -> tuple[float, float]:
        share = (_x(plot, x) - low) / (high - low or 1)
        return LEFT + share * width, bottom - PLOT_HEIGHT * y / most

    drawn = [_text(16, 24, plot.title, kind="t")]
    for step in range(5):
        value = most * step / 4
        y = place(points[0][0], value)[1]
        drawn.append(f'<path d="M{LEFT} {y:.1f}H{LEFT + width}" stroke="#ddd"/>')
        drawn.append(_text(LEFT - 8, y + 4, _number(value), "end"))
    ticks = sorted({x for x, _ in points})
    if len(ticks) > 6:
        ticks = [ticks[0], ticks[len(ticks) // 2], ticks[-1]]
    drawn += [_text(place(tick, 0)[0], bottom + 18, _number(tick), "middle") for tick in ticks]
    for number, (name, line) in enumerate(plot.lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in sorted(line)))
        drawn.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        y = TOP + 16 * number + 12
        drawn.append(
            f'<rect x="{LEFT + width + 12}" y="{y - 9}" width="10" height="10" fill="{colour}"/>'
        )
        drawn.append(_text(LEFT + width + 28, y, name))
    drawn.append(_text(LEFT + width / 2, bottom + 38, plot.x_title, "middle"))
    drawn.append(_text(LEFT - 8, TOP - 4, plot.y_title, "end"))
    return drawn, bottom + 56


def _x(plot: Lines, value: float) -> float:
    return math.log10(value) if plot.logarithmic_x and value > 0 else value
