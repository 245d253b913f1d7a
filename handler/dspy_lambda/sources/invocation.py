"""What the invocations of all sources have in common: request id, deadline, and a clean end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dspy_lambda.environment import Environment
from dspy_lambda.telemetry import Invocation

# A request's own epoch is believed while it is that young: sample events carry epochs of years ago.
_FRESH_SECONDS = 60.0
# Measured (benchmarks/RESULTS.md, "the reserve"): 0.07 to 0.11 ms a record on a whole core, of which the default
# memory of 1,024 MB buys 0.58.
_RESERVE_SECONDS_PER_RECORD = 0.0003


@contextmanager
def begin(
    environment: Environment,
    context: Any,
    source: str,
    *,
    correlation_id: str | None = None,
    epoch_ms: float | None = None,
    records: int = 0,
) -> Iterator[Invocation]:
    """An invocation whose deadline leaves the reserve for answering before Lambda's kill, and the gateway's.

    Args:
        epoch_ms: when the gateway took the request in, which is when its own time limit began.
        records: of a batch: each has its own record to log when the deadline cuts it off.
    """
    now = time.monotonic()
    with environment.telemetry.invocation(
        source,
        request_id=context.aws_request_id,
        correlation_id=correlation_id,
        deadline=now + seconds_for(environment, context, source, epoch_ms, records),
        ends=now + context.get_remaining_time_in_millis() / 1000,
    ) as invocation:
        try:
            environment.thaw()
            yield invocation
        finally:
            environment.rest()


def seconds_for(environment: Environment, context: Any, source: str, epoch_ms: float | None, records: int) -> float:
    """How long the calls of an invocation may take."""
    left: float = context.get_remaining_time_in_millis() / 1000
    limit = environment.integration_seconds.get(source)
    if limit is not None:
        age = time.time() - epoch_ms / 1000 if epoch_ms is not None and environment.believes_epochs else 0.0
        left = min(left, limit - age) if 0 <= age < _FRESH_SECONDS else min(left, limit)
    # A function with a very short timeout keeps most of it for the program.
    reserve = min(environment.reserve_seconds, left / 5) + min(records * _RESERVE_SECONDS_PER_RECORD, left / 4)
    return max(0.0, left - reserve)
