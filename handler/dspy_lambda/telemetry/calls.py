"""One program call, from the moment its request is read to its log record."""

from __future__ import annotations

import time
import traceback
from types import TracebackType
from typing import TYPE_CHECKING, Any

from dspy_lambda.errors import CallError, ProgramFailed, from_exception
from dspy_lambda.telemetry.usage import Usage

if TYPE_CHECKING:
    from dspy_lambda.telemetry.invocation import Invocation

UNKNOWN = "unknown"
# What somebody has to look at; the rest is the caller's or the load's doing.
_ERRORS = {"model_error", "deadline", "program_error"}
_FRAMES = 8


class Call:
    """Times one call and writes its record. Whatever leaves the `with` block as an exception leaves it as a CallError.

    Attributes:
        program, model: the program's name and its model's alias; `unknown` and None where there is none.
        late: whether it had to wait for others of its invocation to end.
        usage: filled by the LM calls that run within this call.
        lm_error: the last failure of an LM call within this call, whatever the program made of it.
    """

    def __init__(
        self, invocation: Invocation, program: str, model: str | None, message_id: str | None, *, late: bool = False
    ) -> None:
        self.invocation = invocation
        self.program = program
        self.model = model
        self.message_id = message_id
        self.late = late
        self.usage = Usage()
        self.lm_error: Exception | None = None
        self.outcome = "success"
        self.duration_ms = 0.0

    @property
    def failed(self) -> bool:
        return self.outcome in _ERRORS

    def __enter__(self) -> Call:
        # What waited for others of its batch waited since the batch came.
        self._start = self.invocation.started if self.late else time.perf_counter()
        return self

    def __exit__(self, _: type[BaseException] | None, raised: BaseException | None, __: TracebackType | None) -> None:
        self.duration_ms = (time.perf_counter() - self._start) * 1000
        error = None if raised is None else from_exception(raised, self.lm_error)
        self.outcome = "success" if error is None else error.outcome
        self.invocation.finish(self, _cause(raised) if self.failed else {})
        if error is not None and error is not raised:
            raise error from raised

    def record(self) -> dict[str, Any]:
        """The fields of this call's log record."""
        usage = self.usage
        cost = usage.cost_usd
        fields = {
            "program": self.program,
            "model": self.model,
            "source": self.invocation.source,
            "outcome": self.outcome,
            "duration_ms": round(self.duration_ms, 3),
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "cost_usd": None if cost is None else round(cost, 10),
            "lm_calls": usage.lm_calls,
            "cache_hits": usage.cache_hits,
            "cold_start": self.invocation.cold_start,
            "function_request_id": self.invocation.request_id,
            "correlation_id": self.invocation.correlation_id or self.message_id or self.invocation.request_id,
        }
        if self.message_id is not None:
            fields["message_id"] = self.message_id
        return fields


def _cause(raised: BaseException | None) -> dict[str, Any]:
    while isinstance(raised, CallError) and raised.__cause__ is not None:
        raised = raised.__cause__
    if raised is None or (isinstance(raised, CallError) and not isinstance(raised, ProgramFailed)):
        return {}
    return describe(raised)


def describe(error: BaseException) -> dict[str, Any]:
    """An exception's kind and place, without a word of its text: that may quote an input, an answer or a key."""
    frames = traceback.extract_tb(error.__traceback__)[-_FRAMES:]
    return {
        "exception_name": type(error).__name__,
        "stack": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames],
    }
