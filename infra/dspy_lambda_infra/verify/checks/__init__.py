"""The checks: each consists of a claim (its docstring) and what was seen."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from dspy_lambda_infra.verify.stack import Seen, Stack

Check = Callable[[Stack], Seen]


def claim(check: Check) -> str:
    """Return a check's claim: the first line of its docstring."""
    return (check.__doc__ or check.__name__).strip().splitlines()[0]


def waiting(stack: Stack, queue: str, seconds: float) -> int:
    """Wait until a queue is empty or the time is over; return how many records it still has."""
    count = 0
    for _ in until(seconds):
        count = stack.count(queue)
        if count == 0:
            break
    return count


def until(seconds: float, pause: float = 5.0) -> Iterator[None]:
    """Yield at least once, and again after each pause, for that many seconds."""
    end = time.monotonic() + seconds
    while True:
        yield
        if time.monotonic() + pause >= end:
            return
        time.sleep(pause)
