"""Spans and the trace of one invocation."""

from __future__ import annotations

import re
import time

from dspy_lambda.telemetry.traces import spans
from dspy_lambda.telemetry.traces.spans import INTERNAL, SERVER, Trace, new_trace_id


def test_a_new_trace_id_begins_with_the_time_as_x_ray_requires():
    found = new_trace_id()
    assert re.fullmatch(r"[0-9a-f]{32}", found)
    assert abs(int(found[:8], 16) - time.time()) < 60


def test_a_child_belongs_to_its_parent_and_trace():
    trace = Trace()
    root = trace.start("POST /Answer", SERVER, None, {})
    child = root.child("step", INTERNAL, {"a": 1})
    assert trace.spans == [root, child]
    assert (child.parent_id, child.trace) == (root.span_id, trace)
    assert root.span_id != child.span_id


def test_a_span_ends_once_and_never_before_its_start():
    span = Trace().start("step", INTERNAL, None, {}, start_ns=100)
    span.end("TimeoutError", end_ns=50)
    span.end(None, end_ns=500)
    assert (span.end_ns, span.error) == (100, "TimeoutError")


def test_spans_above_the_maximum_are_counted(monkeypatch):
    monkeypatch.setattr(spans, "MAX_SPANS", 2)
    trace = Trace()
    for _ in range(5):
        trace.start("step", INTERNAL, None, {})
    assert (len(trace.spans), trace.left_out) == (2, 3)


def test_spans_of_a_closed_trace_are_counted():
    trace = Trace()
    trace.closed = True
    trace.start("step", INTERNAL, None, {}).end()
    assert (trace.spans, trace.left_out) == ([], 1)


def test_a_log_line_names_the_span_that_its_task_works_for():
    assert spans.span_ids() == {}
    span = Trace().start("step", INTERNAL, None, {})
    token = spans.SPAN.set(span)
    assert spans.span_ids() == {"trace_id": span.trace.trace_id, "span_id": span.span_id}
    spans.SPAN.reset(token)
