"""The fields of a call's log record."""

from __future__ import annotations

from typing import Any

from dspy_lambda.call import Call


def record(call: Call) -> dict[str, Any]:
    """Return the fields of a settled call's log record."""
    invocation, usage = call.invocation, call.usage
    fields = about(call) | {"outcome": call.outcome, "duration_ms": round(call.duration_ms, 3)}
    fields |= usage.fields() | {"cold_start": invocation.cold_start}
    if call.failed and invocation.blocker is call:
        fields["blocked_at"] = invocation.blocked_at
    if usage.abandoned:
        fields["lm_calls_abandoned"] = usage.abandoned
    if usage.fallbacks:
        fields["fallbacks"] = usage.fallbacks
    if usage.retries:
        fields["retries"] = usage.retries
    if usage.unpriced:
        fields["unpriced_calls"] = usage.unpriced
    if call.record_age_ms is not None:
        fields["record_age_ms"] = call.record_age_ms
    return fields


def about(call: Call) -> dict[str, Any]:
    """Return the fields that say which call a line is about."""
    return {"program": call.program, "model": call.model, "source": call.invocation.source, **call.ids()}
