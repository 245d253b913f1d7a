"""One invocation: what its calls share, and how much time they have."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from dspy_lambda.call import UNKNOWN, Call

if TYPE_CHECKING:
    from dspy_lambda.environment import Environment
    from dspy_lambda.errors import CallError
    from dspy_lambda.payload import AnswerLimit
    from dspy_lambda.telemetry.traces.spans import Trace
    from dspy_lambda.usage import Answer

# A request's timestamp is trusted only if it is at most this old: sample events carry timestamps of years ago.
_FRESH_SECONDS = 60.0
# Measured (benchmarks/RESULTS.md, "the reserve"): 0.07 to 0.15 ms a record on a whole core.
_RESERVE_SECONDS_PER_RECORD = 0.00018
# Measured at 128 MB with 100 threads cut off in model calls: unwinding DSPy takes 2 ms of a whole core each.
_RESERVE_SECONDS_PER_RUNNING_CALL = 0.002
# How long to wait for other threads to write log records of calls that they have just settled.
_WRITING_SECONDS = 0.05


class Listener(Protocol):
    """Receives the events of an invocation; must not change it."""

    def opened(self, invocation: Invocation, /) -> None: ...

    def started(self, call: Call, /) -> None:
        """A call's program is about to run."""

    def settled(self, call: Call, cause: BaseException | None, /) -> None:
        """A call has an outcome; `cause` is the exception to describe for a program error."""

    def ended(self, call: Call, /) -> None:
        """A call's program has ended, in time or not."""

    def answered_late(self, call: Call, answer: Answer, /) -> None:
        """An answer was read after its call had been settled; it is billed nevertheless."""

    def unexpected(self, invocation: Invocation, error: BaseException, /) -> None: ...

    def closed(self, invocation: Invocation, /) -> None: ...


def _as_it_is(error: CallError, _: BaseException) -> CallError:
    return error


class Invocation:
    """Collects the calls of one invocation.

    Args:
        explain: returns the error for the caller, given a failed call's error and its cause.
        closes: `time.monotonic()` by which the answer must be sent: the gateway's or Lambda's timeout.

    Attributes:
        listener: receives the events of the invocation and its calls.
        source: the event source (`rest`, `http`, `url`, `alb`, `sqs`, `direct`, `serve`).
        deadline: `time.monotonic()` at which every call must have ended; None for no deadline.
        answer_by: `time.monotonic()` at which the main thread answers if the runner has not.
        ends: `time.monotonic()` of Lambda's timeout.
        answer_limit: the maximum size of one call's outputs; None for no limit.
        calls: the calls by position in the batch; the first thread to ask for one creates it.
        counts: additional metrics, by name and program.
        blocker: the call whose program blocked the loop.
        blocked_at: where it blocked the loop: file, line and function.
        over: whether the invocation has been answered.
        trace: its spans; None without tracing.
    """

    def __init__(
        self,
        listener: Listener,
        source: str,
        *,
        request_id: str,
        correlation_id: str | None = None,
        deadline: float | None = None,
        closes: float = math.inf,
        ends: float = math.inf,
        answer_limit: AnswerLimit | None = None,
        cold_start: bool = False,
        explain: Callable[[CallError, BaseException], CallError] = _as_it_is,
    ) -> None:
        self.listener = listener
        self.explain = explain
        self.source = source
        self.request_id = request_id
        self.correlation_id = correlation_id
        self.deadline = deadline
        self.ends = ends
        self.answer_limit = answer_limit
        self.cold_start = cold_start
        # The runner itself answers at the deadline, for which it may use half of the reserve.
        self.answer_by = math.inf if deadline is None else deadline + (closes - deadline) / 2
        self.started = time.monotonic()
        self.blocker: Call | None = None
        self.blocked_at: str | None = None
        self.over = False
        self.trace: Trace | None = None
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
        """Return a call of this invocation; a record's call is identified by its position."""
        call = Call(self, program, model, message_id)
        return self.calls.setdefault(len(self.calls) if position is None else position, call)

    def unexpected(self, error: BaseException) -> None:
        """Log the kind and place of an exception that no call caught."""
        self.listener.unexpected(self, error)

    def wait_for_records(self) -> None:
        """Wait for other threads to write the log records of calls that they have just settled."""
        until = time.monotonic() + _WRITING_SECONDS
        while time.monotonic() < until and any(c.settled and not c.written for c in list(self.calls.values())):
            time.sleep(0.001)

    def ids(self) -> dict[str, str]:
        """Return the ids that link a log line to the request, and the program if there is only one."""
        programs = {call.program for call in list(self.calls.values())}
        return {
            "program": programs.pop() if len(programs) == 1 else UNKNOWN,
            "function_request_id": self.request_id,
            "correlation_id": self.correlation_id or self.request_id,
        }

    def __enter__(self) -> Invocation:
        self.listener.opened(self)
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self.over = True
        self.listener.closed(self)


def open_invocation(
    environment: Environment,
    context: Any,
    source: str,
    *,
    correlation_id: str | None = None,
    epoch_ms: float | None = None,
    records: int = 0,
    answer_limit: AnswerLimit | None = None,
) -> Invocation:
    """Create an invocation whose deadline leaves a reserve for answering before Lambda's and the gateway's timeout.

    Args:
        epoch_ms: when the gateway received the request, which starts the gateway's timeout.
        records: the number of records in a batch; each needs a log record if the deadline cuts it off.
    """
    now = time.monotonic()
    remaining: float = context.get_remaining_time_in_millis() / 1000
    left = seconds_for(environment, remaining, source, epoch_ms)
    return environment.invocation(
        source,
        request_id=context.aws_request_id,
        correlation_id=correlation_id,
        deadline=now + max(0.0, left - reserve_seconds(environment, left, records)),
        closes=now + left,
        ends=now + remaining,
        answer_limit=answer_limit,
    )


def seconds_for(environment: Environment, remaining: float, source: str, epoch_ms: float | None) -> float:
    """Return how many seconds Lambda, or the gateway if its timeout is sooner, waits for the answer."""
    limit = environment.settings.integration_limits.get(source)
    if limit is None:
        return remaining
    # `sam local start-api` sets its own start time in every REST event. aws-sam-cli issue 9279.
    age = 0.0 if epoch_ms is None or environment.settings.is_sam_local else time.time() - epoch_ms / 1000
    return min(remaining, limit - age) if 0 <= age < _FRESH_SECONDS else min(remaining, limit)


def reserve_seconds(environment: Environment, left: float, records: int) -> float:
    """Return the seconds reserved for answering, which grow with the records and with a smaller share of a core.

    A function with a very short timeout keeps most of its time for the program.
    """
    running = min(records, environment.config.server.max_concurrent_per_program)
    work = records * _RESERVE_SECONDS_PER_RECORD + running * _RESERVE_SECONDS_PER_RUNNING_CALL
    of_records = work / environment.settings.core_share
    usual = min(environment.settings.deadline_reserve_ms / 1000, left / 5) + min(of_records, left / 4)
    return max(usual, min(environment.restart_seconds, left / 2))
