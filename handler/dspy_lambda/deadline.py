"""The deadline of the call that runs in this context, for whatever would begin work on its behalf."""

from __future__ import annotations

import time
from contextvars import ContextVar

from dspy_lambda.errors import DeadlineExceeded

# `time.monotonic()`; None outside of a call, or where nobody set one. Threads that carry the context carry it along.
DEADLINE: ContextVar[float | None] = ContextVar("dspy_lambda_deadline", default=None)


def seconds_left() -> float | None:
    """Seconds until the deadline, never negative; None without one."""
    deadline = DEADLINE.get()
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def check_deadline() -> None:
    """Begin nothing late: what nobody waits for any more would be paid for all the same.

    Raises:
        DeadlineExceeded: the deadline has passed.
    """
    deadline = DEADLINE.get()
    if deadline is not None and time.monotonic() >= deadline:
        raise DeadlineExceeded("The deadline has passed; nothing more is started.")
