"""One program call, from the moment its request is read to its outcome."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import dspy

from dspy_lambda.errors import CallError, cause_of, from_exception
from dspy_lambda.process import leave_if_forked
from dspy_lambda.usage import SETTING, Answer, Usage

if TYPE_CHECKING:
    from dspy_lambda.invocation import Invocation

UNKNOWN = "unknown"
# What somebody has to look at; the rest is the caller's or the load's doing.
_ERRORS = {"model_error", "deadline", "program_error"}


# The call that this context runs for; None outside of one. A thread that does not carry the context has none.
CALL: ContextVar[Call | None] = ContextVar("dspy_lambda_call", default=None)


class _Outcome:
    """How a call ended; the first one counts."""

    __slots__ = ("error", "outputs")

    def __init__(self, outputs: bytes | None, error: CallError | None) -> None:
        self.outputs = outputs
        self.error = error


class Call:
    """Times one call, and settles it once: done or failed, whoever is first to say so.

    The loop, a sync program's thread and, at the deadline, the main thread may each come to the end of one call;
    only the first is heard. As a `with` block, whatever leaves it as an exception leaves it as a CallError.

    Attributes:
        program, model: the program's name and its model's alias; `unknown` and None where there is none.
        waited: whether it had to wait for others of its invocation to end.
        usage: filled by the LM calls that run within this call.
        lm_error: the last failure of an LM call within this call, whatever the program made of it.
        started: when it began, by `time.monotonic()`.
        written: whether its record has been written.
        running: whether the program has been started.
        moved: whether the dead-letter queue has its record.
        mark: what notes that the call runs, and its record's position, where that is noted.
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
        self.running = False
        self.moved = False
        self.mark: tuple[Callable[[int, str], None], int] | None = None
        self.begin(waited=False)
        self._settled: dict[int, _Outcome] = {}

    def begin(self, *, waited: bool) -> None:
        """The call's time begins; what waited for others of its batch waited since the batch came."""
        self.waited = waited
        self.started = self.invocation.started if waited else time.monotonic()

    def run(self) -> None:
        """The program is started."""
        self.running = True
        if self.mark is not None:
            self.mark[0](self.mark[1], "running")

    def ended(self) -> None:
        """The program has ended, in time or not."""
        if self.mark is not None and not self.invocation.over:
            self.mark[0](self.mark[1], "done" if self.succeeded else "waiting")
        self.invocation.listener.ended(self)

    def succeed(self, outputs: bytes) -> bool:
        """Settle the call as done, with its outputs as JSON; False if it was settled before."""
        return self._settle(_Outcome(outputs, None), None)

    def fail(self, raised: BaseException) -> bool:
        """Settle the call as failed; False if it was settled before."""
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
        """Why the call failed; None while it runs, and when it is done."""
        outcome = self._settled.get(0)
        return None if outcome is None else outcome.error

    @property
    def outputs(self) -> bytes:
        """The outputs as JSON.

        Raises:
            CallError: why there are none.
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
        return error is None  # done in its thread at the last moment: then nothing failed

    def __deepcopy__(self, _: dict[int, Any]) -> Call:
        """A program that copies its LM deeply still has this call."""
        return self

    def _settle(self, outcome: _Outcome, cause: BaseException | None) -> bool:
        leave_if_forked()
        duration_ms = (time.monotonic() - self.started) * 1000
        # Atomic, and no lock that a thread could be stuck with: one thread's outcome gets in.
        if self._settled.setdefault(0, outcome) is not outcome:
            return False
        self.duration_ms = duration_ms
        self.usage.close()
        try:
            self.invocation.listener.settled(self, cause)
        finally:
            self.written = True
        return True

    def ids(self) -> dict[str, Any]:
        """What leads from a line to the request, and to the record."""
        invocation = self.invocation
        fields = {
            "function_request_id": invocation.request_id,
            "correlation_id": invocation.correlation_id or self.message_id or invocation.request_id,
        }
        if self.message_id is not None:
            fields["message_id"] = self.message_id
        return fields

    def _count_late(self, answer: Answer) -> None:
        """An answer that was read after the call had been settled was paid for all the same."""
        self.invocation.listener.answered_late(self, answer)


class NoCall:
    """The `call` of an LM that no call has asked: in a program's `__init__`, or in a thread that it started itself.

    Args:
        log: called with each answer at once, since no call's record will have it.
        seconds: how long each request may take, with the pauses before its next attempt.
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
    """The call that an LM is asked by: the context's, since a program may keep an LM from one call for the next.

    In a thread without a context (one that the program began) it is the `call` that the LM has, if it has one.
    """
    return CALL.get() or getattr(lm, "call", None)


def usage_of(lm: Any) -> Usage | None:
    """Where an LM's answers count. Where no call is known, DSPy's settings may know it, which go further."""
    usage: Usage | None = getattr(call_of(lm), "usage", None) or dspy.settings.get(SETTING)
    return usage
