"""Calls over time, in at most 120 intervals."""

from __future__ import annotations

import math
from collections.abc import Iterator

from dspy_lambda_infra.logs.durations import Durations
from dspy_lambda_infra.logs.records import SUCCESS, Record

MAX_INTERVALS = 120
# Seconds: each is a multiple of the one before, so that intervals can be joined.
_LENGTHS = (1, 5, 10, 30, 60, 300, 900, 3_600, 10_800, 86_400)


class Interval:
    """The calls that ended in an interval."""

    __slots__ = ("calls", "durations", "errors")

    def __init__(self) -> None:
        self.calls = self.errors = 0
        self.durations = Durations()

    def merge(self, other: Interval) -> None:
        """Add the calls of another interval."""
        self.calls += other.calls
        self.errors += other.errors
        self.durations.merge(other.durations)


class Timeline:
    """Counts calls in intervals that become longer as calls come from a longer time.

    Attributes:
        seconds: the intervals' length.
    """

    def __init__(self) -> None:
        self.seconds = _LENGTHS[0]
        self._intervals: dict[int, Interval] = {}
        self._first = self._last = 0

    def add(self, record: Record) -> None:
        """Add a call; one without a time is left out."""
        if math.isnan(record.at) or record.duration_ms is None:
            return
        number = int(record.at // self.seconds)
        if not self._intervals:
            self._first = self._last = number
        self._first, self._last = min(self._first, number), max(self._last, number)
        while self._last - self._first >= MAX_INTERVALS:
            self._lengthen()
            number = int(record.at // self.seconds)
        interval = self._intervals.get(number)
        if interval is None:
            interval = self._intervals.setdefault(number, Interval())
        interval.calls += 1
        interval.errors += record.outcome != SUCCESS
        interval.durations.add(record.duration_ms)

    def _lengthen(self) -> None:
        longer = next((length for length in _LENGTHS if length > self.seconds), self.seconds * 2)
        factor = longer // self.seconds
        joined: dict[int, Interval] = {}
        for number, interval in self._intervals.items():
            there = joined.setdefault(number // factor, interval)
            if there is not interval:
                there.merge(interval)
        self.seconds, self._intervals = longer, joined
        self._first, self._last = self._first // factor, self._last // factor

    def intervals(self) -> Iterator[tuple[float, Interval]]:
        """Yield each interval's start in seconds since the epoch, from the first to the last, empty ones too."""
        if self._intervals:
            for number in range(self._first, self._last + 1):
                yield number * self.seconds, self._intervals.get(number) or Interval()
