"""Durations of any number of calls in a bounded memory, and their percentiles."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator

# Up to here percentiles are exact; 32 KB for each row.
EXACT = 4_096
# Above, each value counts for the middle of its bucket, at most 0.5 % away: DDSketch, https://arxiv.org/abs/1908.10693
ERROR = 0.005
_GROWTH = (1 + ERROR) / (1 - ERROR)
_LOG_GROWTH = math.log(_GROWTH)
_MIDDLE = 2 / (1 + _GROWTH)
_LEAST_MS, _MOST_MS = 0.001, 1e9  # 2,764 buckets at most; no invocation takes 11 days

METHOD = f"percentiles: nearest rank; exact up to {EXACT:,} calls, above within {ERROR * 100:g} %"


class Durations:
    """Durations in milliseconds.

    Attributes:
        count: the number of durations.
        most: the longest one, exactly; 0 if there is none.
    """

    __slots__ = ("_buckets", "_values", "count", "most")

    def __init__(self) -> None:
        self.count = 0
        self.most = 0.0
        self._values: array[float] | None = array("d")
        self._buckets: dict[int, int] = {}

    def add(self, milliseconds: float) -> None:
        """Add one duration."""
        self.count += 1
        if milliseconds > self.most:
            self.most = milliseconds
        if self._values is not None and self.count <= EXACT:
            self._values.append(milliseconds)
            return
        self._spill()
        self._add_to_bucket(milliseconds, 1)

    def merge(self, other: Durations) -> None:
        """Add all durations of another one."""
        exact = self._values is not None and other._values is not None and self.count + other.count <= EXACT
        self.count += other.count
        self.most = max(self.most, other.most)
        if exact and self._values is not None and other._values is not None:
            self._values.extend(other._values)
            return
        self._spill()
        for milliseconds, count in other.items():
            self._add_to_bucket(milliseconds, count)

    def items(self) -> Iterator[tuple[float, int]]:
        """Yield durations, in ascending order, with their counts."""
        if self._values is not None:
            yield from ((value, 1) for value in sorted(self._values))
        else:
            for number in sorted(self._buckets):
                yield min(_GROWTH**number * _MIDDLE, self.most), self._buckets[number]

    def percentiles(self, *percents: float) -> list[float]:
        """Return percentiles, ascending as given: the smallest duration that this percentage of all do not exceed.

        Without durations they are NaN.
        """
        found: list[float] = []
        seen = 0
        for milliseconds, count in self.items():
            seen += count
            while len(found) < len(percents) and seen >= self.count * percents[len(found)] / 100:
                found.append(milliseconds)
        return found + [math.nan] * (len(percents) - len(found))

    def _spill(self) -> None:
        """Move the exact values to buckets."""
        if self._values is not None:
            values, self._values = self._values, None
            for value in values:
                self._add_to_bucket(value, 1)

    def _add_to_bucket(self, milliseconds: float, count: int) -> None:
        bounded = min(max(milliseconds, _LEAST_MS), _MOST_MS)
        number = math.ceil(math.log(bounded) / _LOG_GROWTH)
        self._buckets[number] = self._buckets.get(number, 0) + count
