"""One program call, from reading its request to its outcome."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from dspy_lambda.dspy_patches.insides import usage_of_settings
from dspy_lambda.errors import CallError, cause_of, from_exception
from dspy_lambda.process import leave_if_forked
from dspy_lambda.usage import Answer, Usage

if TYPE_CHECKING:
    from dspy_lambda.invocation import Invocation
    from dspy_lambda.telemetry.traces.spans import Span

UNKNOWN = "unknown"
# Outcomes that need attention; callers or load cause the others.
_ERRORS = {"model_error", "deadline", "program_error"}


# The call that this context belongs to; None outside any call, and in a thread that does not carry the context.
CALL: ContextVar[Call | None] = ContextVar("dspy_lambda_call", default=None)


class _Outcome:
    """How a call ended; the first one counts."""

    __slots__ = ("error", "outputs")

    def __init__(self, outputs: bytes | None, error: CallError | None) -> None:
        self.outputs = outputs
        self.error = error


class Call:
    """Times one call, and settles it exactly once, as done or failed.

    The loop, a sync program's thread and, at the deadline, the main thread may each try to settle the call; the first
    one wins. Used as a context manager, it converts any exception to a CallError.

    Attributes:
        program, model: the program's name and its model's alias; `unknown` and None if there is no program.
        waited: whether the call waited for others of its invocation to end.
        usage: the totals of the LM calls within this call.
        lm_error: the last failure of an LM call within this call, even if the program handled it.
        started: the start time, by `time.monotonic()`.
        written: whether the call's log record has been written.
        inputs: what the caller sent, and once they are validated, the program's arguments; None if there are none.
        result: what the program returned. Both are dropped when the call is settled.
        running: whether the program has been started.
        moved: whether the SQS record was moved to the dead-letter queue.
        span: the call's span; None before the program is started, and without tracing.
        record_age_ms: milliseconds from the SQS record's arrival in the queue to the start of its call; None for other
            sources.
        mark: the journal's function to note the call's state, and the record's position; None without a journal.
    """

    def __init__(self, invocation: Invocation, program: str, model: str | None, message_id: str | None) -> None:
        self.invocation = invocation
        self.program = program
        self.model = model
        self.message_id = message_id
        self.usage = Usage(self._count_late)
        self.lm_error: Exception | None = None
        self.duration_ms = 0.0
        self.written = False
        self.inputs: Any = None
        self.result: Any = None
        self.running = False
        self.moved = False
        self.span: Span | None = None
        self.record_age_ms: int | None = None
        self.mark: tuple[Callable[[int, str], None], int] | None = None
        self.begin(waited=False)
        self._settled: dict[int, _Outcome] = {}

    def begin(self, *, waited: bool) -> None:
        """Start timing; a record that waited for others of its batch is timed from the batch's arrival."""
        self.waited = waited
        self.started = self.invocation.started if waited else time.monotonic()

    def run(self) -> None:
        """Note that the program is started."""
        self.running = True
        self.invocation.listener.started(self)
        if self.mark is not None:
            self.mark[0](self.mark[1], "running")

    def ended(self) -> None:
        """Note that the program has ended, in time or not."""
        if self.mark is not None and not self.invocation.over:
            self.mark[0](self.mark[1], "done" if self.succeeded else "waiting")
        self.invocation.listener.ended(self)

    def succeed(self, outputs: bytes) -> bool:
        """Settle the call as done, with its outputs as JSON; return False if it was already settled."""
        return self._settle(_Outcome(outputs, None), None)

    def fail(self, raised: BaseException) -> bool:
        """Settle the call as failed; return False if it was already settled."""
        error = from_exception(raised, self.lm_error)
        cause = cause_of(raised) if error.outcome in _ERRORS else None
        if cause is not None:
            error = self.invocation.explain(error, cause)
        return self._settle(_Outcome(None, error), cause)

    @property
    def settled(self) -> bool:
        return bool(self._settled)

    @property
    def succeeded(self) -> bool:
        outcome = self._settled.get(0)
        return outcome is not None and outcome.error is None

    @property
    def error(self) -> CallError | None:
        """The error of a failed call; None while it is running and when it is done."""
        outcome = self._settled.get(0)
        return None if outcome is None else outcome.error

    @property
    def outputs(self) -> bytes:
        """The outputs as JSON.

        Raises:
            CallError: The call failed.
        """
        outcome = self._settled[0]
        if outcome.error is not None:
            raise outcome.error
        assert outcome.outputs is not None
        return outcome.outputs

    @property
    def outcome(self) -> str:
        error = self.error
        return "success" if error is None else error.outcome

    @property
    def failed(self) -> bool:
        return self.outcome in _ERRORS

    def __enter__(self) -> Call:
        return self

    def __exit__(self, _: type[BaseException] | None, raised: BaseException | None, __: TracebackType | None) -> bool:
        if raised is not None:
            self.fail(raised)
        error = self.error
        if error is not None and error is not raised:
            raise error from raised
        return error is None  # its thread finished at the last moment: nothing failed

    def __deepcopy__(self, _: dict[int, Any]) -> Call:
        """Return the call itself, so that a program's deep copy of its LM keeps this call."""
        return self

    def _settle(self, outcome: _Outcome, cause: BaseException | None) -> bool:
        leave_if_forked()
        duration_ms = (time.monotonic() - self.started) * 1000
        # setdefault is atomic, and unlike a lock it cannot be held by a stuck thread: the first outcome wins.
        if self._settled.setdefault(0, outcome) is not outcome:
            return False
        self.duration_ms = duration_ms
        self.usage.close()
        try:
            self.invocation.listener.settled(self, cause)
        finally:
            self.written = True
            self.inputs = self.result = None
        return True

    def ids(self) -> dict[str, Any]:
        """Return the ids that link a log line to its request and SQS record."""
        invocation = self.invocation
        fields = {
            "function_request_id": invocation.request_id,
            "correlation_id": invocation.correlation_id or self.message_id or invocation.request_id,
        }
        if self.message_id is not None:
            fields["message_id"] = self.message_id
        return fields

    def _count_late(self, answer: Answer) -> None:
        """Report an answer that was read after the call had been settled; it is billed nevertheless."""
        self.invocation.listener.answered_late(self, answer)


class NoCall:
    """The `call` of an LM used outside any call: in a program's `__init__`, or in a thread that the program started.

    Args:
        log: called with each answer immediately, since no call's record will include it.
        seconds: how long each request may take, including pauses between attempts.
    """

    def __init__(self, log: Callable[[Answer], None], seconds: float) -> None:
        self.seconds = seconds
        self.usage = Usage(log)
        self.usage.close()

    @property
    def invocation(self) -> Self:
        return self

    @property
    def deadline(self) -> float:
        return time.monotonic() + self.seconds

    def __deepcopy__(self, _: dict[int, Any]) -> Self:
        return self


def call_of(lm: Any) -> Any:
    """Return the call that is using an LM: the context's call first, since a program may keep an LM between calls.

    In a thread without a context (one that the program started), it is the LM's `call`, if any.
    """
    return CALL.get() or getattr(lm, "call", None)


def usage_of(lm: Any) -> Usage | None:
    """Return the usage to count an LM's answers in. If the call is unknown, DSPy's settings may carry its usage."""
    usage: Usage | None = getattr(call_of(lm), "usage", None) or usage_of_settings()
    return usage
