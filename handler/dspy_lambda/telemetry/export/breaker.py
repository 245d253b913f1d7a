"""Pauses after failures, so that a dead collector costs no invocation more than the first."""

from __future__ import annotations

import time
from collections.abc import Callable

_FIRST_SECONDS, _MAX_SECONDS = 1.0, 60.0
_MAX_RETRY_AFTER = 300.0


class Breaker:
    """Open for 1, 2, 4 ... 60 s after the first, second, third failure in a row.

    Args:
        clock: seconds; by default the wall clock, because others may stop while the environment is frozen.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self.reset()

    def reset(self) -> None:
        """Forget all failures."""
        self._failures = 0
        self._opened = self._seconds = 0.0

    def fail(self, retry_after: float = 0.0) -> None:
        """Open it.

        Args:
            retry_after: the pause in seconds that the server asked for; at most five minutes are granted.
        """
        pause = min(_FIRST_SECONDS * 2 ** min(self._failures, 10), _MAX_SECONDS)
        self._failures += 1
        self._opened, self._seconds = self._clock(), max(pause, min(retry_after, _MAX_RETRY_AFTER))

    @property
    def is_open(self) -> bool:
        """Whether to wait before the next attempt; never if the clock was set back."""
        return 0 <= self._clock() - self._opened < self._seconds
