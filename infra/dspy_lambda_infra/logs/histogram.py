"""A histogram of durations for terminals."""

from __future__ import annotations

import math
from collections.abc import Iterator

from dspy_lambda_infra.logs.durations import Durations
from dspy_lambda_infra.terminal import Terminal

_STEPS = (1, 2, 5)
_BAR = 40
_EIGHTHS = " ▏▎▍▌▋▊▉"


def bins(durations: Durations) -> list[tuple[float, float, int]]:
    """Return lower and upper bound in milliseconds, and count, of bins from 1, 2, 5, 10, 20 ... to the next.

    They reach from the shortest to the longest duration; a duration that equals a bound is in the upper bin.
    """
    counts: dict[int, int] = {}
    for milliseconds, count in durations.items():
        number = _bin(milliseconds)
        counts[number] = counts.get(number, 0) + count
    if not counts:
        return []
    return [(_bound(n), _bound(n + 1), counts.get(n, 0)) for n in range(min(counts), max(counts) + 1)]


def histogram(durations: Durations, terminal: Terminal) -> Iterator[str]:
    """Yield the lines of a histogram; the bars' scale is linear, the bins' logarithmic."""
    found = bins(durations)
    most = max((count for *_, count in found), default=0)
    width = min(_BAR, max(terminal.width - 40, 10))
    for low, high, count in found:
        label = f"{_label(low):>9} - {_label(high):>9}"
        yield f"{label}  {_bar(count / most * width, terminal.unicode):<{width}}  {count:,}"


def _bar(length: float, unicode: bool) -> str:
    if not unicode:
        return "#" * max(math.ceil(length), 0)
    whole, eighths = divmod(math.ceil(length * 8), 8)
    return "█" * whole + _EIGHTHS[eighths].strip()


def _bin(milliseconds: float) -> int:
    # Everything below 1 ms is one bin.
    if milliseconds < 1:
        return -1
    decade = math.floor(math.log10(milliseconds))
    number = decade * len(_STEPS)
    while _bound(number + 1) <= milliseconds:
        number += 1
    return number


def _bound(number: int) -> float:
    decade, step = divmod(number, len(_STEPS))
    return 0 if number < 0 else _STEPS[step] * 10.0**decade


def _label(milliseconds: float) -> str:
    return f"{milliseconds:g} ms" if milliseconds < 1000 else f"{milliseconds / 1000:g} s"
