"""Tracing for users' own code."""

from __future__ import annotations

import asyncio

import pytest

from dspy_lambda.telemetry.traces.spans import INTERNAL, SPAN, Trace
from dspy_lambda.tracing import step, trace_headers


@pytest.fixture
def parent():
    span = Trace().start("call", INTERNAL, None, {})
    token = SPAN.set(span)
    yield span
    SPAN.reset(token)


def test_a_step_is_timed_below_the_current_one(parent):
    with step("search", results=3), step("rank"):
        pass
    _, search, rank = parent.trace.spans
    assert (search.name, search.parent_id, search.attributes) == ("search", parent.span_id, {"results": 3})
    assert (rank.parent_id, SPAN.get()) == (search.span_id, parent)
    assert search.end_ns >= rank.end_ns > 0


def test_a_failed_step_names_the_error(parent):
    with pytest.raises(ValueError, match="no"), step("search"):
        raise ValueError("no")
    assert (parent.trace.spans[1].error, SPAN.get()) == ("ValueError", parent)


def test_a_canceled_step_has_the_same_error_as_a_canceled_lm_call(parent):
    with pytest.raises(asyncio.CancelledError), step("search"):
        raise asyncio.CancelledError
    assert parent.trace.spans[1].error == "canceled"


def test_headers_continue_the_current_step(parent):
    assert trace_headers() == {"traceparent": f"00-{parent.trace.trace_id}-{parent.span_id}-01"}


def test_without_tracing_nothing_happens():
    with step("search"):
        assert trace_headers() == {}


def test_a_generator_closed_in_a_later_call_leaves_that_calls_step_alone(parent):
    def passages():
        with step("search"):
            yield 1

    kept = passages()
    next(kept)
    later = Trace().start("later call", INTERNAL, None, {})
    SPAN.set(later)
    kept.close()
    assert SPAN.get() is later
