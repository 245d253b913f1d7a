"""What the invocations of all sources have in common: request id, deadline, and how much time is kept back."""

from __future__ import annotations

import time
from typing import Any

from dspy_lambda.environment import Environment
from dspy_lambda.invocation import Invocation
from dspy_lambda.payload import AnswerLimit

# A request's own epoch is believed while it is that young: sample events carry epochs of years ago.
_FRESH_SECONDS = 60.0
# Measured (benchmarks/RESULTS.md, "the reserve"): 0.07 to 0.15 ms a record on a whole core.
_RESERVE_SECONDS_PER_RECORD = 0.00018
# Measured at 128 MB, 100 threads cut off in their model calls: 2 ms of a whole core each, until DSPy has unwound.
_RESERVE_SECONDS_PER_RUNNING_CALL = 0.002


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
