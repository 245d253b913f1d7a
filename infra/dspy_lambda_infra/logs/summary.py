"""The totals below the table of calls, as text."""

from __future__ import annotations

import math
from collections.abc import Iterator

from dspy_lambda_infra.logs.durations import METHOD
from dspy_lambda_infra.logs.records import SUCCESS
from dspy_lambda_infra.logs.totals import Sum, Totals
from dspy_lambda_infra.table import table
from dspy_lambda_infra.terminal import Terminal, cut, printable

_HEADER = ["program", "model", "calls", "errors", "p50 ms", "p95 ms", "p99 ms", "max ms"]
_MORE = ["tokens in", "out", "cost USD", "cached", "cold"]
_NAME_COLUMNS = 24


def summary(totals: Totals, terminal: Terminal) -> Iterator[str]:
    """Yield the lines: a table by program and model, then what its figures do not say."""
    rows = totals.rows()
    shown = [[_name(program, terminal), _name(model, terminal), *figures(row)] for program, model, row in rows]
    if len(rows) != 1:
        shown.append(["total", "", *figures(totals.all)])
    lines = table([[*_HEADER, *_MORE], *shown], words=2)
    if terminal.columns and max(map(len, lines)) > terminal.columns:
        first = table([[*_HEADER], *(row[: len(_HEADER)] for row in shown)], words=2)
        second = table([[*_HEADER[:2], *_MORE], *(row[:2] + row[len(_HEADER) :] for row in shown)], words=2)
        lines = [*first, "", *second]
    yield from (cut(line, terminal.columns) if terminal.columns else line for line in lines)
    yield METHOD
    for program, model, row in rows:
        if found := list(notes(row)):
            yield f"{printable(program)}, {printable(model)}: {'; '.join(found)}"


def figures(row: Sum) -> list[str]:
    """Return the figures of a row."""
    return [
        f"{row.calls:,}",
        f"{row.errors:,}",
        *(milliseconds(value) for value in row.durations.percentiles(50, 95, 99)),
        milliseconds(row.durations.most if row.calls else math.nan),
        f"{row.input_tokens:,}",
        f"{row.output_tokens:,}",
        cost(row),
        f"{row.cache_hits:,}",
        f"{row.cold_starts:,}",
    ]


def notes(row: Sum) -> Iterator[str]:
    """Yield what a row's figures do not say: errors by outcome, unknown costs, answers outside of calls."""
    errors = [f"{count:,} {printable(outcome)}" for outcome, count in row.outcomes.most_common() if outcome != SUCCESS]
    if errors:
        yield ", ".join(errors)
    if row.unknown_costs:
        yield f"cost unknown for {row.unknown_costs:,} call{'s' if row.unknown_costs > 1 else ''}, which the sum lacks"
    if row.outside:
        yield f"tokens and cost include {row.outside:,} answers after or outside of calls"


def cost(row: Sum) -> str:
    """Return the known cost in US dollars, or `unknown`; followed by + if more is unknown."""
    if row.unknown_costs and not row.cost_usd:
        return "unknown"
    return f"{row.cost_usd:,.6f}{'+' if row.unknown_costs else ''}"


def milliseconds(value: float) -> str:
    """Return milliseconds with three significant digits below 100."""
    return "-" if math.isnan(value) else f"{value:,.0f}" if value >= 99.5 else f"{value:.3g}"


def _name(text: str, terminal: Terminal) -> str:
    return cut(printable(text), _NAME_COLUMNS, "…" if terminal.unicode else "~")
