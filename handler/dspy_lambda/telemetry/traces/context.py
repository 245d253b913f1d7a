"""Where a trace comes from and where it goes on: W3C Trace Context and X-Ray's header.

https://www.w3.org/TR/trace-context/
https://docs.aws.amazon.com/xray/latest/devguide/xray-concepts.html#xray-concepts-tracingheader

Whoever calls may send anything: what is not exactly a header of these formats counts as none.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from dspy_lambda.telemetry.traces.spans import Span

# Version 00 has exactly these parts; later versions may append more. All zeros and version ff are invalid.
_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.{1,100})?", re.ASCII
)
# OTLP, too, knows no id of zeros: a collector may refuse the whole request, with other callers' spans.
_ROOT = re.compile(r"1-(?!0{8}-0{24})([0-9a-f]{8})-([0-9a-f]{24})", re.ASCII)
_PARENT = re.compile(r"(?!0{16})[0-9a-f]{16}", re.ASCII)
# "Vendors SHOULD propagate at least 512 characters of a combined header."
_MAX_STATE = 512
_MAX_HEADER = 2000


class Incoming(NamedTuple):
    """A caller's context.

    Attributes:
        trace_id, parent_id: 32 and 16 hexadecimal digits.
        sampled: the decision to keep the trace or not; None if there was none yet.
        state: W3C's `tracestate`, which is handed on unchanged.
    """

    trace_id: str
    parent_id: str | None
    sampled: bool | None
    state: str = ""


def from_traceparent(header: object, state: object = "") -> Incoming | None:
    """Read W3C's `traceparent` and `tracestate`; None if the first is not valid."""
    if type(header) is not str or len(header) > _MAX_HEADER:
        return None
    found = _TRACEPARENT.fullmatch(header.strip())
    if found is None or (found[4] and header.strip().startswith("00")):
        return None
    is_state = type(state) is str and len(state) <= _MAX_STATE and state.isascii() and state.isprintable()
    return Incoming(found[1], found[2], bool(int(found[3], 16) & 1), str(state) if is_state else "")


def from_x_ray(header: object) -> Incoming | None:
    """Read `X-Amzn-Trace-Id` or `AWSTraceHeader`; None if it has no valid root."""
    if type(header) is not str or len(header) > _MAX_HEADER:
        return None
    parts = dict(part.strip().partition("=")[::2] for part in header.split(";"))
    root = _ROOT.fullmatch(parts.get("Root", ""))
    if root is None:
        return None
    parent = parts.get("Parent", "")
    sampled = {"0": False, "1": True}.get(parts.get("Sampled", ""))
    return Incoming(root[1] + root[2], parent if _PARENT.fullmatch(parent) else None, sampled)


def from_headers(headers: Any) -> Incoming | None:
    """Read an HTTP request's headers by lower-case name; W3C's come first, because X-Ray's may be a gateway's own."""
    found = from_traceparent(headers.get("traceparent"), headers.get("tracestate") or "")
    return found or from_x_ray(headers.get("x-amzn-trace-id"))


def headers_of(span: Span) -> dict[str, str]:
    """Return the headers that continue a span's trace in another service."""
    trace = span.trace
    found = {"traceparent": f"00-{trace.trace_id}-{span.span_id}-{'01' if trace.hands_on_sampled else '00'}"}
    if trace.tracestate:
        found["tracestate"] = trace.tracestate
    return found
