"""Contexts from callers, who may send anything, and to providers and tools."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspy_lambda.telemetry.traces.context import Incoming, from_headers, from_traceparent, from_x_ray, headers_of
from dspy_lambda.telemetry.traces.spans import CLIENT, Trace

TRACE, SPAN = "5759e988bd862e3fe1be46a994272793", "53995c3f42cd8ad8"


def test_w3c_context_is_continued():
    assert from_traceparent(f"00-{TRACE}-{SPAN}-01", "vendor=1") == Incoming(TRACE, SPAN, True, "vendor=1")
    assert from_traceparent(f"00-{TRACE}-{SPAN}-00") == Incoming(TRACE, SPAN, False)


def test_a_later_version_may_have_more_parts():
    assert from_traceparent(f"01-{TRACE}-{SPAN}-01-more") == Incoming(TRACE, SPAN, True)


@pytest.mark.parametrize(
    "header",
    [
        None,
        b"00",
        "",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-01" + "x" * 5000,
        f"00-{TRACE[:-1]}٣-{SPAN}-01",
    ],
)
def test_a_malformed_traceparent_counts_as_none(header):
    assert from_traceparent(header) is None


def test_an_oversized_tracestate_is_left_out():
    assert from_traceparent(f"00-{TRACE}-{SPAN}-01", "a" * 600) == Incoming(TRACE, SPAN, True)
    assert from_traceparent(f"00-{TRACE}-{SPAN}-01", "a\r\nb: c") == Incoming(TRACE, SPAN, True)


def test_x_ray_context_is_continued():
    header = f"Root=1-{TRACE[:8]}-{TRACE[8:]};Parent={SPAN};Sampled=1;Lineage=1:a:0"
    assert from_x_ray(header) == Incoming(TRACE, SPAN, True)


def test_a_gateways_root_alone_decides_nothing():
    assert from_x_ray(f"Root=1-{TRACE[:8]}-{TRACE[8:]}") == Incoming(TRACE, None, None)


ZEROS = f"Root=1-{'0' * 8}-{'0' * 24};Sampled=1"


@pytest.mark.parametrize("header", [None, 1, "", "Root=1-5-6", f"Parent={SPAN}", "Root=" + "1" * 3000, ";;=;", ZEROS])
def test_a_malformed_x_ray_header_counts_as_none(header):
    assert from_x_ray(header) is None


@given(st.text() | st.binary() | st.none() | st.integers())
def test_no_header_raises(header):
    assert from_headers({"traceparent": header, "tracestate": header, "x-amzn-trace-id": header}) is None


def test_w3c_comes_before_a_gateways_x_ray_header():
    headers = {"traceparent": f"00-{TRACE}-{SPAN}-01", "x-amzn-trace-id": f"Root=1-{'a' * 8}-{'b' * 24}"}
    assert from_headers(headers) == Incoming(TRACE, SPAN, True)


def test_what_is_handed_on_continues_the_span():
    span = Trace(TRACE, SPAN, None, "vendor=1").start("chat m", CLIENT, None, {})
    headers = headers_of(span)
    assert from_headers(headers) == Incoming(TRACE, span.span_id, True, "vendor=1")


def test_a_callers_no_is_handed_on():
    span = Trace(TRACE, SPAN, False).start("chat m", CLIENT, None, {})
    assert headers_of(span)["traceparent"].endswith("-00")
