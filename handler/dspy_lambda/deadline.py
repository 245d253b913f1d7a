"""The deadline of the call that runs in this context."""

from __future__ import annotations

import time
from contextvars import ContextVar

from dspy_lambda.errors import DeadlineExceeded

# By `time.monotonic()`; None outside any call or without a deadline. Threads that carry the context have it, too.
DEADLINE: ContextVar[float | None] = ContextVar("dspy_lambda_deadline", default=None)


def seconds_left() -> float | None:
    """Return the seconds until the deadline, never negative; None without a deadline."""
    deadline = DEADLINE.get()
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def is_late() -> bool:
    """Whether the deadline has passed."""
    deadline = DEADLINE.get()
    return deadline is not None and time.monotonic() >= deadline


def check_deadline() -> None:
    """Refuse to start work after the deadline: it would be billed although no one waits for the result.

    Raises:
        DeadlineExceeded: The deadline has passed.
    """
    if is_late():
        raise DeadlineExceeded("The deadline has passed; no more work is started.")
