"""The report: one HTML page with plots that loads nothing, runs nothing and can be sent as a file."""

from __future__ import annotations

import base64
import hashlib
import heapq
import math
import time
from collections import deque
from collections.abc import Iterable, Sequence
from html import escape

from dspy_lambda_infra.logs.durations import METHOD
from dspy_lambda_infra.logs.histogram import bins
from dspy_lambda_infra.logs.plots import bars, lines, rows
from dspy_lambda_infra.logs.records import SUCCESS, Record
from dspy_lambda_infra.logs.style import STYLE
from dspy_lambda_infra.logs.summary import cost, figures, milliseconds, notes
from dspy_lambda_infra.logs.timeline import Timeline
from dspy_lambda_infra.logs.totals import Totals
from dspy_lambda_infra.terminal import printable

_SLOWEST, _FAILED = 25, 50
_MOST_BARS = 30
_TOTALS = (
    *("program", "model", "calls", "errors", "p50 ms", "p95 ms", "p99 ms", "max ms"),
    *("tokens in", "out", "cost USD", "cache hits", "cold starts"),
)
_CALLS = ("time (UTC)", "program", "model", "outcome", "ms", "tokens in", "out", "cost USD", "request id", "error")
# Only this style: no script, no image, no font, no form, nothing from elsewhere. Hashed: 'unsafe-inline' would let
# markup style itself, if any ever came in.
_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
_POLICY = f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'"


class Report:
    """Collects what the page shows besides totals: calls over time, the slowest and the last failed ones."""

    def __init__(self) -> None:
        self._timeline = Timeline()
        self._slowest: list[tuple[float, int, Record]] = []
        self._failed: deque[Record] = deque(maxlen=_FAILED)
        self._count = 0

    def add(self, record: Record) -> None:
        """Add a call."""
        if record.duration_ms is None:
            return
        self._count += 1
        self._timeline.add(record)
        item = record.duration_ms, -self._count, record
        if len(self._slowest) < _SLOWEST:
            heapq.heappush(self._slowest, item)
        elif item > self._slowest[0]:
            heapq.heapreplace(self._slowest, item)
        if record.outcome != SUCCESS:
            self._failed.append(record)

    def html(self, totals: Totals) -> str:
        """Return the page."""
        slowest = [record for *_, record in sorted(self._slowest, reverse=True)]
        body = [
            "<h1>DSPy program calls</h1>",
            f"<p>{_span(self._timeline)}</p>",
            _section("Totals", _totals(totals), f"{METHOD.capitalize()}. Errors: outcomes other than success."),
            _section("Calls and errors over time", self._calls_plot(), _legend(calls="success", errors="errors")),
            _section("Duration over time", self._duration_plot(), _legend(p50="p50", p95="p95", p99="p99")),
            _section("Durations", _histogram(totals), "Milliseconds; each bar's name is its lower bound."),
            _section("Tokens by program and model", _tokens(totals), _legend(input="input", output="output")),
            _section("Cost by program and model", _costs(totals), "US dollars; + where prices of some are unknown."),
            _section(f"Slowest calls (at most {_SLOWEST})", _calls(slowest)),
            _section(f"Failed calls (the last {_FAILED} at most)", _calls(reversed(self._failed))),
        ]
        return _page("".join(body))

    def _calls_plot(self) -> str:
        found = list(self._timeline.intervals())
        labels = _labels([start for start, _ in found])
        success = [float(one.calls - one.errors) for _, one in found]
        errors = [float(one.errors) for _, one in found]
        tips = [
            f"{label}: {one.calls:,} calls, {one.errors:,} errors"
            for label, (_, one) in zip(labels, found, strict=True)
        ]
        return bars(labels, [("calls", success), ("errors", errors)], tips, _number)

    def _duration_plot(self) -> str:
        found = list(self._timeline.intervals())
        labels = _labels([start for start, _ in found])
        points = [one.durations.percentiles(50, 95, 99) for _, one in found]
        tips = [
            f"{label}: p50 {milliseconds(p50)} ms, p95 {milliseconds(p95)} ms, p99 {milliseconds(p99)} ms"
            for label, (p50, p95, p99) in zip(labels, points, strict=True)
        ]
        # The lower ones on top: with few calls, p95 and p99 are the same.
        names = {"p99": 2, "p95": 1, "p50": 0}
        series = [(name, [point[number] for point in points]) for name, number in names.items()]
        return lines(labels, series, tips, lambda value: f"{milliseconds(value)} ms")


def _page(body: str) -> str:
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="referrer" content="no-referrer">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>DSPy program calls</title><style>{STYLE}</style></head><body>{body}</body></html>\n"
    )


def _section(title: str, content: str, note: str = "") -> str:
    """Return a section. `content` is HTML; so is `note`."""
    return f"<section><h2>{escape(title)}</h2>{content}{f'<p>{note}</p>' if note else ''}</section>"


def _legend(**names: str) -> str:
    keys = (
        f'<svg class="key" viewBox="0 0 10 10"><rect class="{name}" width="10" height="10"/></svg>' for name in names
    )
    return " ".join(f"{key} {escape(text)}" for key, text in zip(keys, names.values(), strict=True))


def _totals(totals: Totals) -> str:
    shown = [[program, model, *figures(row)] for program, model, row in totals.rows()]
    shown.append(["total", "", *figures(totals.all)])
    said = [(f"{program}, {model}", note) for program, model, row in totals.rows() for note in notes(row)]
    listed = "".join(f"<li>{_text(name)}: {escape(note)}</li>" for name, note in said)
    return _table(_TOTALS, shown, words=2) + (f"<ul>{listed}</ul>" if listed else "")


def _histogram(totals: Totals) -> str:
    found = bins(totals.all.durations)
    tips = [f"{low:g} to {high:g} ms: {count:,} calls" for low, high, count in found]
    return bars([f"{low:g}" for low, *_ in found], [("calls", [float(count) for *_, count in found])], tips, _number)


def _tokens(totals: Totals) -> str:
    found = sorted(totals.rows(), key=lambda one: -(one[2].input_tokens + one[2].output_tokens))[:_MOST_BARS]
    series = [
        ("input", [float(row.input_tokens) for *_, row in found]),
        ("output", [float(row.output_tokens) for *_, row in found]),
    ]
    return rows(_names(found), series, [f"{row.input_tokens:,} + {row.output_tokens:,}" for *_, row in found])


def _costs(totals: Totals) -> str:
    found = sorted(totals.rows(), key=lambda one: -one[2].cost_usd)[:_MOST_BARS]
    return rows(_names(found), [("cost", [row.cost_usd for *_, row in found])], [cost(row) for *_, row in found])


def _names(found: Sequence[tuple[str, str, object]]) -> list[str]:
    return [printable(f"{program}, {model}") for program, model, _ in found]


def _calls(records: Iterable[Record]) -> str:
    shown = [
        [
            _utc(record.at),
            record.program,
            record.model,
            record.outcome,
            f"{record.duration_ms or 0:,.0f}",
            f"{record.input_tokens:,}",
            f"{record.output_tokens:,}",
            "unknown" if record.cost_usd is None else f"{record.cost_usd:.6f}",
            record.request_id,
            record.why,
        ]
        for record in records
    ]
    return _table(_CALLS, shown, words=4) if shown else "<p>none</p>"


def _table(header: Sequence[str], body: Iterable[Sequence[str]], words: int) -> str:
    """Return a table. Columns after the first `words` are aligned right."""

    def line(cells: Sequence[str], tag: str) -> str:
        marks = ("" if number < words else ' class="n"' for number in range(len(cells)))
        return "".join(f"<{tag}{mark}>{_text(cell)}</{tag}>" for mark, cell in zip(marks, cells, strict=True))

    shown = "".join(f"<tr>{line(cells, 'td')}</tr>" for cells in body)
    return f'<div class="scroll"><table><tr>{line(header, "th")}</tr>{shown}</table></div>'


def _span(timeline: Timeline) -> str:
    starts = [start for start, _ in timeline.intervals()]
    if not starts:
        return "No calls with a time."
    return f"From {_utc(starts[0])} to {_utc(starts[-1] + timeline.seconds)} (UTC), {timeline.seconds:,} s to a bar."


def _labels(starts: Sequence[float]) -> list[str]:
    is_one_day = bool(starts) and starts[-1] - starts[0] < 86_400
    return [_utc(start)[11:] if is_one_day else _utc(start)[:16] for start in starts]


def _utc(at: float) -> str:
    try:
        return "-" if math.isnan(at) else time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(at))
    except (ValueError, OverflowError, OSError):
        return "-"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:g}"


def _text(text: str) -> str:
    return escape(printable(text))
