"""From Lambda's context to an Invocation: request id and deadline."""

from __future__ import annotations

from typing import Any

from handler.environment import Environment
from handler.telemetry import Invocation


def begin(environment: Environment, context: Any, source: str, correlation_id: str | None = None) -> Invocation:
    """A new invocation whose deadline leaves the reserve for answering before Lambda's own kill."""
    remaining = context.get_remaining_time_in_millis() / 1000
    # A function with a very short timeout keeps most of it for the program.
    reserve = min(environment.reserve_seconds, remaining / 5)
    return environment.telemetry.invocation(
        source,
        request_id=context.aws_request_id,
        correlation_id=correlation_id,
        deadline=environment.loop.time() + remaining - reserve,
    )
