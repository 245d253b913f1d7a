"""Spans, read from OTLP's JSON and from CloudWatch's own form of it.

OTLP: https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding. The log group `aws/spans` has one span for each
event, with attributes as a plain object, kinds and status codes as names, and times as numbers:
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch-Transaction-Search.html
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

INVOCATION_ID = "faas.invocation_id"
_IDS = (INVOCATION_ID, "messaging.message.id", "dspy_lambda.message_id", "dspy_lambda.correlation_id")
_ERROR = (2, "ERROR", "STATUS_CODE_ERROR")
_NUMBERS = {"intValue": int, "doubleValue": float}
_UNFINISHED = "unfinished"
_DOCUMENT_KEYS = {"resourceSpans", "spans", "traceId"}
_MAX_DOCUMENT = 256 * 2**20  # of one over several lines; one in each line has no limit in number
_MAX_TIME = 2**64  # OTLP's fixed64


@dataclass(frozen=True)
class Span:
    """One timed step.

    Attributes:
        parent_id: empty for a trace's first span.
        start_ns, end_ns: nanoseconds since the epoch; `end_ns` is 0 if it did not end.
        error: why it failed, in the tracer's word; None if it did not.
        resource: attributes of the function that it ran in.
    """

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    start_ns: int
    end_ns: int
    attributes: dict[str, Any]
    error: str | None
    resource: dict[str, Any]

    @property
    def ids(self) -> set[str]:
        """The request id, message ids and correlation id that the span carries."""
        return {str(self.attributes[key]) for key in _IDS if self.attributes.get(key)}

    @property
    def is_invocation(self) -> bool:
        """Whether it is an invocation's first span."""
        return INVOCATION_ID in self.attributes

    @property
    def is_unfinished(self) -> bool:
        """Whether it still ran when its invocation ended, or never ended."""
        return not self.end_ns or self.error == _UNFINISHED

    def document(self) -> dict[str, Any]:
        """Return the span as a JSON-serializable dict."""
        return {
            "trace_id": self.trace_id,
            "span_id": self.span_id,
            "parent_id": self.parent_id or None,
            "name": self.name,
            "start_ns": self.start_ns,
            "end_ns": self.end_ns or None,
            "error": self.error,
            "attributes": self.attributes,
            "resource": self.resource,
        }


def spans(document: Any) -> Iterator[Span]:
    """Yield the spans of a document: an ExportTraceServiceRequest, a list of some, one span, or `{"spans": [...]}`.

    What is none of these, or a span without ids or a start, is left out.
    """
    if isinstance(document, list):
        for one in document:
            yield from spans(one)
    elif isinstance(document, dict):
        if "resourceSpans" in document:
            yield from _exported(document)
        elif isinstance(document.get("spans"), list):
            yield from spans(document["spans"])
        elif (found := span(document, document.get("resource"))) is not None:
            yield found


def _exported(request: dict[str, Any]) -> Iterator[Span]:
    for group in _dicts(request.get("resourceSpans")):
        for scope in _dicts(group.get("scopeSpans")):
            for one in _dicts(scope.get("spans")):
                if (found := span(one, group.get("resource"))) is not None:
                    yield found


def span(found: dict[str, Any], resource: Any) -> Span | None:
    """Return a span from its JSON object; None if it is not one."""
    try:
        status = found.get("status")
        code = status.get("code") if isinstance(status, dict) else None
        attributes = _attributes(found.get("attributes"))
        start, end = int(found["startTimeUnixNano"]), int(found.get("endTimeUnixNano") or 0)
        if not (0 <= start < _MAX_TIME and 0 <= end < _MAX_TIME):
            return None
        return Span(
            trace_id=_id(found["traceId"]),
            span_id=_id(found["spanId"]),
            parent_id=_id(found.get("parentSpanId") or ""),
            name=str(found.get("name", "")),
            start_ns=start,
            end_ns=end,
            attributes=attributes,
            error=str(attributes.get("error.type") or "error") if code in _ERROR else None,
            resource=_attributes(resource.get("attributes")) if isinstance(resource, dict) else {},
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _id(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value.lower()


def _attributes(found: Any) -> dict[str, Any]:
    if isinstance(found, dict):
        return {str(key): value for key, value in found.items()}
    return {str(one["key"]): _value(one.get("value")) for one in _dicts(found) if "key" in one}


def _value(found: Any) -> Any:
    """Return the value of an AnyValue; 64-bit numbers are texts in JSON."""
    if not isinstance(found, dict) or len(found) != 1:
        return None
    [(kind, value)] = found.items()
    if kind in _NUMBERS:
        return _NUMBERS[kind](value)
    if kind == "arrayValue":
        return [_value(one) for one in _dicts(value.get("values"))]
    if kind == "kvlistValue":
        return _attributes(value.get("values"))
    return value


def _dicts(found: Any) -> list[dict[str, Any]]:
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def documents(lines: Iterator[bytes], marks: Collection[bytes] = ()) -> Iterator[Any]:
    """Yield the JSON documents in lines: one in each, or a single one over all. Lines that are neither are left out.

    Args:
        marks: lower-case texts; documents without any of them, in any case, are left out, most without parsing them.
    """
    head: list[bytes] = []  # of a document over several lines
    size, is_single = 0, True
    for line in lines:
        if head or not _is_left_out(line, marks):
            found = _parsed(line)
            if isinstance(found, dict) and (not head or found.keys() & _DOCUMENT_KEYS):
                head, is_single = [], False
                if not _is_left_out(line, marks):
                    yield found
                continue
        if is_single and size < _MAX_DOCUMENT:
            head.append(line)
            size += len(line)
    whole = b"".join(head)
    if is_single and not _is_left_out(whole, marks):
        yield _parsed(whole)


def _is_left_out(text: bytes, marks: Collection[bytes]) -> bool:
    lowered = text.lower()
    return bool(marks) and not any(mark in lowered for mark in marks)


def _parsed(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None  # half of a document, a line that is still being written, or no JSON
