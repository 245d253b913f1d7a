"""The table of calls: a row for each, as wide as the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime

from dspy_lambda_infra.logs.records import SUCCESS, Record
from dspy_lambda_infra.terminal import Terminal, columns, cut, pad, printable

HEADER = ("time", "program", "model", "outcome", "ms", "in", "out", "cost USD", "request id")
_TIME, _PROGRAM, _MODEL, _OUTCOME, _MS, _IN, _OUT, _COST, _REQUEST = range(len(HEADER))
_RIGHT = {_MS, _IN, _OUT, _COST}
# While following, before the calls are known. A request id has 36 characters.
_SCROLLING = (14, 18, 14, 13, 9, 7, 7, 10, 36)
# What becomes narrower on narrow terminals, and down to which width; then what is left out.
_SHRINK = ((_REQUEST, 9), (_MODEL, 10), (_PROGRAM, 10), (_TIME, 8))
_LEAVE_OUT = (_MODEL, _REQUEST, _COST, _IN, _OUT, _TIME)
# Unlike an invalid input, these are nobody's mistake but the program's or the model's.
_WARNINGS = {"invalid_input", "rate_limited", "overloaded"}


def cells(record: Record) -> tuple[str, ...]:
    """Return a call's row."""
    return (
        clock(record.at),
        printable(record.program),
        printable(record.model),
        printable(record.outcome) or "(no call)",
        "" if record.duration_ms is None else f"{record.duration_ms:,.0f}",
        f"{record.input_tokens:,}",
        f"{record.output_tokens:,}",
        "unknown" if record.cost_usd is None else f"{record.cost_usd:.6f}",
        printable(record.request_id) or "-",
    )


def clock(at: float) -> str:
    """Return a time of this year's calendar in local time; `-` if there is none."""
    try:
        return datetime.fromtimestamp(at).strftime("%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return "-"


class CallTable:
    """Formats rows of calls.

    Args:
        rows: the rows that all columns must fit; None for rows that are not known yet.
    """

    def __init__(self, terminal: Terminal, rows: Sequence[tuple[str, ...]] | None = None) -> None:
        self._terminal = terminal
        if rows is None:
            widths = list(_SCROLLING)
        else:
            widths = [max(map(columns, column)) for column in zip(HEADER, *rows, strict=True)]
        self._widths = _fitting(widths, terminal.columns or math.inf)
        self._mark = "…" if terminal.unicode else "~"

    def header(self) -> str:
        """Return the line with the columns' names."""
        return self._terminal.color(self._line(HEADER, ""), "bold")

    def row(self, record: Record) -> str:
        """Return a call's line."""
        outcome = record.outcome
        color = "green" if outcome == SUCCESS else "yellow" if outcome in _WARNINGS else "red" if outcome else "dim"
        return self._line(cells(record), color)

    def _line(self, row: tuple[str, ...], color: str) -> str:
        parts = []
        for number, width in self._widths.items():
            text = row[number]
            if number == _TIME and width < columns(text):
                text = text[-8:]  # without the date
            text = pad(cut(text, width, self._mark), width, right=number in _RIGHT)
            parts.append(self._terminal.color(text, color) if number == _OUTCOME and color else text)
        return "  ".join(parts).rstrip()


def _fitting(widths: list[int], available: float) -> dict[int, int]:
    """Return the columns' widths, by position, so that they fit."""
    fitting = dict(enumerate(widths))

    def excess() -> float:
        return sum(fitting.values()) + 2 * (len(fitting) - 1) - available

    for column, least in _SHRINK:
        if excess() > 0:
            fitting[column] = int(max(min(least, fitting[column]), fitting[column] - excess()))
    for column in _LEAVE_OUT:
        if excess() > 0:
            del fitting[column]
    return fitting
