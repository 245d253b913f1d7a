"""Plots as SVG, which a page contains as they are: without scripts, styles or addresses of their own."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

_WIDTH, _HEIGHT = 720, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 12, 12, 28
_MAX_LABELS = 6
_ROW = 22
Series = tuple[str, Sequence[float]]  # a CSS class, and a value for each position; NaN for none


def bars(labels: Sequence[str], series: Sequence[Series], tips: Sequence[str], show: Callable[[float], str]) -> str:
    """Return a bar for each label, with the series on top of each other.

    Args:
        tips: what pointing at a bar shows.
        show: formats the values of the axis.
    """
    top = nice(max((sum(values) for values in zip(*(values for _, values in series), strict=True)), default=0))
    parts = [_axes(labels, top, show)]
    step = _step(len(labels))
    for position, tip in enumerate(tips):
        base = 0.0
        for name, values in series:
            low, high = _y(base, top), _y(base + values[position], top)
            base += values[position]
            if low > high:
                x, width = _LEFT + position * step + step * 0.1, max(step * 0.8, 0.5)
                shape = f'x="{x:.1f}" y="{high:.1f}" width="{width:.1f}" height="{low - high:.1f}"'
                parts.append(f'<rect class="{name}" {shape}><title>{escape(tip)}</title></rect>')
    return _svg(parts)


def lines(labels: Sequence[str], series: Sequence[Series], tips: Sequence[str], show: Callable[[float], str]) -> str:
    """Return a line for each series, interrupted where there is no value."""
    known = [value for _, values in series for value in values if not math.isnan(value)]
    top = nice(max(known, default=0))
    parts = [_axes(labels, top, show)]
    step = _step(len(labels))
    for name, values in series:
        pen, path = "M", []
        for position, value in enumerate(values):
            if math.isnan(value):
                pen = "M"
                continue
            x, y = _LEFT + (position + 0.5) * step, _y(value, top)
            path.append(f"{pen}{x:.1f} {y:.1f}")
            pen = "L"
            dot = f'class="{name}" cx="{x:.1f}" cy="{y:.1f}" r="2"'
            parts.append(f"<circle {dot}><title>{escape(tips[position])}</title></circle>")
        parts.append(f'<path class="{name} line" d="{" ".join(path)}"/>')
    return _svg(parts)


def rows(labels: Sequence[str], series: Sequence[Series], shown: Sequence[str]) -> str:
    """Return a horizontal bar for each label, with the series after each other.

    Args:
        shown: the text behind each bar.
    """
    top = max((sum(values) for values in zip(*(values for _, values in series), strict=True)), default=0) or 1
    left, room = 230, _WIDTH - 230 - 170
    parts = []
    for position, label in enumerate(labels):
        y, x = position * _ROW, float(left)
        parts.append(f'<text x="{left - 8}" y="{y + 15}" text-anchor="end">{escape(_short(label))}</text>')
        for name, values in series:
            width = values[position] / top * room
            parts.append(f'<rect class="{name}" x="{x:.1f}" y="{y + 4}" width="{width:.1f}" height="{_ROW - 8}"/>')
            x += width
        parts.append(f'<text x="{x + 6:.1f}" y="{y + 15}">{escape(shown[position])}</text>')
    return _svg(parts, max(len(labels) * _ROW, _ROW))


def nice(value: float) -> float:
    """Return the next number from 1, 2, 5, 10, 20 ... that is not below a value; 1 if it is 0."""
    if value <= 0:
        return 1
    power = 10.0 ** math.floor(math.log10(value))
    return next((power * step for step in (1, 2, 5) if power * step >= value), power * 10)


def _axes(labels: Sequence[str], top: float, show: Callable[[float], str]) -> str:
    parts = []
    for share in (0, 0.25, 0.5, 0.75, 1):
        y = _y(top * share, top)
        parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{escape(show(top * share))}</text>')
    every = max(math.ceil(len(labels) / _MAX_LABELS), 1)
    for position in range(0, len(labels), every):
        x = _LEFT + (position + 0.5) * _step(len(labels))
        text = f'<text x="{x:.1f}" y="{_HEIGHT - 8}" text-anchor="middle">{escape(labels[position])}</text>'
        parts.append(text)
    return "".join(parts)


def _y(value: float, top: float) -> float:
    return _HEIGHT - _BOTTOM - value / top * (_HEIGHT - _TOP - _BOTTOM)


def _step(count: int) -> float:
    return (_WIDTH - _LEFT - _RIGHT) / max(count, 1)


def _short(label: str) -> str:
    return label if len(label) <= 32 else f"{label[:31]}…"


def _svg(parts: Sequence[str], height: int = _HEIGHT) -> str:
    return f'<svg viewBox="0 0 {_WIDTH} {height}" role="img">{"".join(parts)}</svg>'
