"""Sums of calls, by program and model."""

from __future__ import annotations

from collections import Counter

from dspy_lambda_infra.logs.durations import Durations
from dspy_lambda_infra.logs.records import SUCCESS, Record

# Names come from lines, which anybody may have written; the rest is summed in one row.
MAX_ROWS = 500
REST = "(others)"
# Costs are logged with 10 decimals: sums of whole numbers are exact in any order.
_DECIMALS = 10**10


class Sum:
    """The sum of some calls, and of answers outside of calls.

    Attributes:
        outcomes: calls by outcome.
        unknown_costs: calls (or answers) whose cost is unknown; `cost_usd` is without them.
    """

    __slots__ = (
        "_cost",
        "cache_hits",
        "calls",
        "cold_starts",
        "durations",
        "input_tokens",
        "outcomes",
        "output_tokens",
        "outside",
        "unknown_costs",
    )

    def __init__(self) -> None:
        self.calls = self.outside = self.input_tokens = self.output_tokens = 0
        self.cache_hits = self.cold_starts = self.unknown_costs = self._cost = 0
        self.outcomes: Counter[str] = Counter()
        self.durations = Durations()

    @property
    def cost_usd(self) -> float:
        """US dollars, of all answers with a known price."""
        return self._cost / _DECIMALS

    @property
    def errors(self) -> int:
        """Calls whose outcome is not success."""
        return self.calls - self.outcomes[SUCCESS]

    def add(self, record: Record) -> None:
        """Add a call, or an answer outside of calls."""
        self.input_tokens += record.input_tokens
        self.output_tokens += record.output_tokens
        self.cache_hits += record.cache_hits
        if record.cost_usd is None:
            self.unknown_costs += 1
        else:
            self._cost += round(record.cost_usd * _DECIMALS)
        if record.duration_ms is None:
            self.outside += 1
            return
        self.calls += 1
        self.cold_starts += record.cold_start
        outcome = record.outcome
        self.outcomes[outcome if outcome in self.outcomes or len(self.outcomes) < 20 else REST] += 1
        self.durations.add(record.duration_ms)


class Totals:
    """Sums by program and model, and of all calls."""

    def __init__(self) -> None:
        self.all = Sum()
        self._rows: dict[tuple[str, str], Sum] = {}

    def add(self, record: Record) -> None:
        """Add a call, or an answer outside of calls."""
        self.all.add(record)
        key = record.program, record.model
        row = self._rows.get(key)
        if row is None:
            row = self._rows.setdefault(key if len(self._rows) < MAX_ROWS else (REST, REST), Sum())
        row.add(record)

    def rows(self) -> list[tuple[str, str, Sum]]:
        """Return program, model and sum of each, in alphabetical order."""
        return [(program, model, row) for (program, model), row in sorted(self._rows.items())]
