"""Tracing for users' own code: steps of their own in a call's trace, and headers that continue it elsewhere.

Both do nothing where `telemetry.traces` is `none`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dspy_lambda.telemetry.traces.spans import INTERNAL, SPAN, error_word, leave

__all__ = ["step", "trace_headers"]


@contextmanager
def step(name: str, **attributes: str | int | float | bool) -> Iterator[None]:
    """Time a block of a program as a step of its own; what runs in it is shown below it.

    Args:
        name: the same for every call; what differs belongs into the attributes.
        attributes: written whatever `telemetry.payloads` says, so not for inputs and answers.
    """
    parent = SPAN.get()
    if parent is None or parent.trace.closed:
        yield
        return
    span = parent.child(name, INTERNAL, dict(attributes))
    SPAN.set(span)
    try:
        yield
    except BaseException as error:
        span.end(error_word(error))
        raise
    finally:
        leave(span, parent)
        span.end()


def trace_headers() -> dict[str, str]:
    """Return the headers (`traceparent`, and `tracestate` if the caller sent one) for a tool's own requests."""
    span = SPAN.get()
    if span is None:
        return {}
    from dspy_lambda.telemetry.traces.context import headers_of

    return headers_of(span)
