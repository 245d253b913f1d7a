"""One invocation: what its calls have in common, and its metrics."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from dspy_lambda.telemetry.calls import UNKNOWN, Call, describe

if TYPE_CHECKING:
    from dspy_lambda.telemetry.telemetry import Telemetry

# EMF: "Arrays of metric values cannot exceed 100 elements".
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
MAX_VALUES = 100


class Invocation:
    """Collects the calls of one invocation; on leaving, writes their metrics in as few EMF blobs as fit.

    Attributes:
        source: the event source (`rest`, `http`, `url`, `alb`, `sqs`, `direct`, `serve`).
        deadline: `time.monotonic()` at which every call must have ended; None for no deadline.
        ends: `time.monotonic()` of Lambda's own kill.
    """

    def __init__(
        self,
        telemetry: Telemetry,
        source: str,
        *,
        request_id: str,
        correlation_id: str | None = None,
        deadline: float | None = None,
        ends: float = math.inf,
        cold_start: bool = False,
    ) -> None:
        self.telemetry = telemetry
        self.source = source
        self.request_id = request_id
        self.correlation_id = correlation_id
        self.deadline = deadline
        self.ends = ends
        self.cold_start = cold_start
        self.started = time.perf_counter()
        self.records_failed: Counter[str] = Counter()
        self._calls: dict[str, list[Call]] = {}

    def call(
        self, program: str = UNKNOWN, model: str | None = None, message_id: str | None = None, *, late: bool = False
    ) -> Call:
        """A new call within this invocation; `late` if it had to wait for others to end."""
        return Call(self, program, model, message_id, late=late)

    def finish(self, call: Call, cause: dict[str, Any]) -> None:
        self._calls.setdefault(call.program, []).append(call)
        self.telemetry.write(call, cause)

    def unforeseen(self, error: Exception) -> None:
        """Log what no call could catch, by kind and place."""
        self.telemetry.logger.error("unforeseen error", extra=describe(error))

    def __enter__(self) -> Invocation:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        programs = list(self._calls | self.records_failed) or ([UNKNOWN] if self.cold_start else [])
        for position, program in enumerate(programs):
            calls = self._calls.get(program, [])
            for start in range(0, max(len(calls), 1), MAX_VALUES):
                values = _values(calls[start : start + MAX_VALUES])
                if start == 0 and self.source == "sqs":
                    values["RecordsFailed"] = ("Count", [self.records_failed[program]])
                if start == 0 and position == 0 and self.cold_start:
                    values["ColdStart"] = ("Count", [1])
                self.telemetry.emit(program, values)


def _values(calls: list[Call]) -> dict[str, tuple[str, list[float]]]:
    """Name -> (unit, values). Counts travel as their sum, measures as one value per call, for percentiles."""
    if not calls:
        return {}
    values: dict[str, tuple[str, list[float]]] = {
        "Calls": ("Count", [len(calls)]),
        "Errors": ("Count", [sum(call.failed for call in calls)]),
        "RateLimited": ("Count", [sum(call.outcome == "rate_limited" for call in calls)]),
        "LMCalls": ("Count", [sum(call.usage.lm_calls for call in calls)]),
        "Duration": ("Milliseconds", [round(call.duration_ms, 3) for call in calls]),
        "InputTokens": ("Count", [call.usage.input_tokens for call in calls]),
        "OutputTokens": ("Count", [call.usage.output_tokens for call in calls]),
    }
    if costs := _known(call.usage.cost_usd for call in calls):
        values["CostUSD"] = ("None", costs)
    return values


def _known(costs: Iterable[float | None]) -> list[float]:
    return [round(cost, 10) for cost in costs if cost is not None]
