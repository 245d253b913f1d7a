"""One invocation: what its calls have in common, and its metrics."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING

from dspy_lambda.telemetry.calls import UNKNOWN, Call

if TYPE_CHECKING:
    from dspy_lambda.payload import AnswerLimit
    from dspy_lambda.telemetry.telemetry import Telemetry

# EMF: "Arrays of metric values cannot exceed 100 elements".
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
MAX_VALUES = 100
# A record that another thread has just settled is written a moment later.
_WRITING_SECONDS = 0.05


class Invocation:
    """Collects the calls of one invocation; on leaving, writes their metrics in as few EMF blobs as fit.

    Attributes:
        source: the event source (`rest`, `http`, `url`, `alb`, `sqs`, `direct`, `serve`).
        deadline: `time.monotonic()` at which every call must have ended; None for no deadline.
        closes: `time.monotonic()` by which the answer must be on its way: the gateway's limit or Lambda's kill.
        answer_by: `time.monotonic()` at which the main thread answers, if the runner has not.
        ends: `time.monotonic()` of Lambda's own kill.
        answer_limit: what one call's outputs may come to; None for no limit.
        calls: those of a batch by position: each is made once, by whoever comes to it first.
        counts: further metrics, by name and program.
        blocker: the call whose program kept the loop from its other work.
        blocked_at: where that was: file, line and function.
        over: whether it has been answered.
    """

    def __init__(
        self,
        telemetry: Telemetry,
        source: str,
        *,
        request_id: str,
        correlation_id: str | None = None,
        deadline: float | None = None,
        closes: float = math.inf,
        ends: float = math.inf,
        answer_limit: AnswerLimit | None = None,
        cold_start: bool = False,
    ) -> None:
        self.telemetry = telemetry
        self.source = source
        self.request_id = request_id
        self.correlation_id = correlation_id
        self.deadline = deadline
        self.closes = closes
        self.ends = ends
        self.answer_limit = answer_limit
        self.cold_start = cold_start
        # The runner answers at the deadline itself; half of the reserve is how long it may take for that.
        self.answer_by = math.inf if deadline is None else deadline + (closes - deadline) / 2
        self.started = time.monotonic()
        self.blocker: Call | None = None
        self.blocked_at: str | None = None
        self.over = False
        self.records_failed: Counter[str] = Counter()
        self.calls: dict[int, Call] = {}
        self.counts: Counter[tuple[str, str]] = Counter()

    def call(
        self,
        program: str = UNKNOWN,
        model: str | None = None,
        message_id: str | None = None,
        *,
        position: int | None = None,
    ) -> Call:
        """A call within this invocation; a record's by its position."""
        call = Call(self, program, model, message_id)
        return self.calls.setdefault(len(self.calls) if position is None else position, call)

    def unforeseen(self, error: BaseException) -> None:
        """Log what no call could catch, by kind and place."""
        self.telemetry.log("ERROR", "unforeseen error", self.ids() | self.telemetry.exceptions.fields(error))

    def wait_for_records(self) -> None:
        """Let other threads write the records of what they have just settled."""
        until = time.monotonic() + _WRITING_SECONDS
        while time.monotonic() < until and any(c.settled and not c.written for c in list(self.calls.values())):
            time.sleep(0.001)

    def ids(self) -> dict[str, str]:
        """What leads from a line to the request, and which program it is about where that is known."""
        programs = {call.program for call in list(self.calls.values())}
        return {
            "program": programs.pop() if len(programs) == 1 else UNKNOWN,
            "function_request_id": self.request_id,
            "correlation_id": self.correlation_id or self.request_id,
        }

    def __enter__(self) -> Invocation:
        if self.source != "serve":  # which runs many at once
            self.telemetry.current = self
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self.over = True
        self.telemetry.current = None
        finished: dict[str, list[Call]] = {}
        for call in list(self.calls.values()):
            if call.settled:
                finished.setdefault(call.program, []).append(call)
        extra = {program: None for _, program in self.counts}
        programs = list(finished | self.records_failed | extra) or ([UNKNOWN] if self.cold_start else [])
        for position, program in enumerate(programs):
            calls = finished.get(program, [])
            for start in range(0, max(len(calls), 1), MAX_VALUES):
                values = _values(calls[start : start + MAX_VALUES])
                if start == 0:
                    values |= self._once(program, position == 0)
                self.telemetry.emit(program, values)

    def _once(self, program: str, is_first: bool) -> dict[str, list[float]]:
        """What a program's first blob has beyond its calls."""
        values: dict[str, list[float]] = {}
        if self.source == "sqs":
            values["RecordsFailed"] = [self.records_failed[program]]
        if is_first and self.cold_start:
            values["ColdStart"] = [1]
        for (name, counted), number in self.counts.items():
            if counted == program:
                values[name] = [number]
        return values


def _values(calls: list[Call]) -> dict[str, list[float]]:
    """The metrics of some calls. Counts travel as their sum, measures as one value per call, for percentiles."""
    if not calls:
        return {}
    values: dict[str, list[float]] = {
        "Calls": [len(calls)],
        "Errors": [sum(call.failed for call in calls)],
        "RateLimited": [sum(call.outcome == "rate_limited" for call in calls)],
        "LMCalls": [sum(call.usage.lm_calls for call in calls)],
        "Duration": [round(call.duration_ms, 3) for call in calls],
        "InputTokens": [call.usage.input_tokens for call in calls],
        "OutputTokens": [call.usage.output_tokens for call in calls],
    }
    if costs := _known(call.usage.cost_usd for call in calls):
        values["CostUSD"] = costs
    return values


def _known(costs: Iterable[float | None]) -> list[float]:
    return [round(cost, 10) for cost in costs if cost is not None]
