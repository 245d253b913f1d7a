"""One invocation: what its calls have in common, and how much time there is for them."""

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
    from dspy_lambda.usage import Answer

# A request's own epoch is believed while it is that young: sample events carry epochs of years ago.
_FRESH_SECONDS = 60.0
# Measured (benchmarks/RESULTS.md, "the reserve"): 0.07 to 0.15 ms a record on a whole core.
_RESERVE_SECONDS_PER_RECORD = 0.00018
# Measured at 128 MB, 100 threads cut off in their model calls: 2 ms of a whole core each, until DSPy has unwound.
_RESERVE_SECONDS_PER_RUNNING_CALL = 0.002
# A record that another thread has just settled is written a moment later.
_WRITING_SECONDS = 0.05


class Listener(Protocol):
    """Is told what happens in an invocation, and changes nothing of it."""

    def opened(self, invocation: Invocation, /) -> None: ...

    def settled(self, call: Call, cause: BaseException | None, /) -> None:
        """A call has an outcome; `cause` is what a program error is described by."""

    def ended(self, call: Call, /) -> None:
        """A call's program has ended, in time or not."""

    def answered_late(self, call: Call, answer: Answer, /) -> None:
        """An answer was read after its call had been settled: it was paid for all the same."""

    def unforeseen(self, invocation: Invocation, error: BaseException, /) -> None: ...

    def closed(self, invocation: Invocation, /) -> None: ...


def _as_it_is(error: CallError, _: BaseException) -> CallError:
    return error


class Invocation:
    """Collects the calls of one invocation.

    Args:
        explain: makes of a failed call's error, and of what it describes, the error that the caller gets.
        closes: `time.monotonic()` by which the answer must be on its way: the gateway's limit or Lambda's kill.

    Attributes:
        listener: is told of it, and of its calls.
        source: the event source (`rest`, `http`, `url`, `alb`, `sqs`, `direct`, `serve`).
        deadline: `time.monotonic()` at which every call must have ended; None for no deadline.
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
        self.listener.unforeseen(self, error)

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
    """An invocation whose deadline leaves the reserve for answering before Lambda's kill, and the gateway's.

    Args:
        epoch_ms: when the gateway took the request in, which is when its own time limit began.
        records: of a batch: each has its own record to log when the deadline cuts it off.
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
    """How long anyone waits for the answer: Lambda or, if it gives up sooner, the gateway."""
    limit = environment.settings.integration_limits.get(source)
    if limit is None:
        return remaining
    # `sam local start-api` gives every REST event the time of its own start. aws-sam-cli issue 9279.
    age = 0.0 if epoch_ms is None or environment.settings.is_sam_local else time.time() - epoch_ms / 1000
    return min(remaining, limit - age) if 0 <= age < _FRESH_SECONDS else min(remaining, limit)


def reserve_seconds(environment: Environment, left: float, records: int) -> float:
    """What is kept back for answering. With a share of a core, each record takes that much longer.

    A function with a very short timeout keeps most of it for the program.
    """
    running = min(records, environment.config.server.max_concurrent_per_program)
    work = records * _RESERVE_SECONDS_PER_RECORD + running * _RESERVE_SECONDS_PER_RUNNING_CALL
    of_records = work / environment.settings.core_share
    usual = min(environment.settings.deadline_reserve_ms / 1000, left / 5) + min(of_records, left / 4)
    return max(usual, min(environment.restart_seconds, left / 2))
