"""How many calls run at once, until when, and how often each is tried."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from dspy_lambda.deadline import DEADLINE, seconds_left
from dspy_lambda.errors import CallError, from_exception
from dspy_lambda.introspection import is_a

# DSPy's own bound for its pauses between attempts: `_delay` in dspy/clients/execution.py (DSPy 3.4).
MAX_PAUSE_SECONDS = 60.0


@dataclass(frozen=True)
class Limits:
    """The limits of one fan-out or retry.

    Args:
        parallel: how many run at once; 8 is DSPy's own default (`num_threads`).
        seconds: how long all of them may take together. None: until the deadline of the call that this runs in.
        reserve_seconds: how much time before that call's deadline to keep for what comes after; at most half of what
            is left, because the same program has 29 s behind a REST API and up to 15 minutes behind a queue.
        attempts: how often each is tried if its error is transient (a rate limit, an outage), in addition to the LM's
            own `num_retries`. The pauses are random and grow, unless the provider names one.

    Raises:
        ValueError: A limit is not positive, or the reserve is negative.
    """

    parallel: int = 8
    seconds: float | None = None
    reserve_seconds: float = 1.0
    attempts: int = 1

    def __post_init__(self) -> None:
        for name in ("parallel", "seconds", "attempts"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} must be positive, not {value}")
        if self.reserve_seconds < 0:
            raise ValueError(f"reserve_seconds must not be negative: {self.reserve_seconds}")

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Move this context's deadline forward to where these limits end.

        Tasks and threads started within it inherit that deadline, so that the LM calls of a thread, which cannot be
        canceled, end by then, too.
        """
        before, now = DEADLINE.get(), time.monotonic()
        ends = [] if before is None else [before - min(self.reserve_seconds, max(0.0, before - now) / 2)]
        if self.seconds is not None:
            ends.append(now + self.seconds)
        DEADLINE.set(min(ends, default=None))
        try:
            yield
        finally:
            DEADLINE.set(before)  # no token: a coroutine may be closed in another context

    def pause_after(self, attempt: int, error: Exception) -> float | None:
        """Return the seconds until the next attempt; None if there is none: not transient, not allowed, or too late."""
        meaning = from_exception(error)
        if attempt >= self.attempts or not _is_transient(error, meaning):
            return None
        asked, left = meaning.retry_after, seconds_left()
        # Full jitter: https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/
        pause = random.uniform(0, min(2.0 ** (attempt - 1), MAX_PAUSE_SECONDS)) if asked is None else asked  # noqa: S311
        return pause if pause < (MAX_PAUSE_SECONDS if left is None else left) else None


def _is_transient(error: Exception, meaning: CallError) -> bool:
    """Whether an error may pass within seconds. A refused key may be replaced within hours, but not within a call."""
    lm = sys.modules.get("dspy.utils.exceptions")
    if lm is not None and is_a(error, lm.LMError):
        return bool(lm.is_retryable_lm_error(error))
    return meaning.temporary


DEFAULT = Limits()
THREE_ATTEMPTS = Limits(attempts=3)
