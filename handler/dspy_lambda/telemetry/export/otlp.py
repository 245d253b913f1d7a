"""Encode spans as OTLP: the JSON form of ExportTraceServiceRequest.

OpenTelemetry's SDK takes 92 ms to import (measured), more than a cold start may spend on traces. JSON, because a string
of it is built faster than the binary form without compiled code.

https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding
"""

from __future__ import annotations

import json
import math
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from dspy_lambda import __version__
from dspy_lambda.telemetry.traces.spans import SEMANTIC_CONVENTIONS, Span

# "Single span maximum size: 200 KB", "Maximum request size: 5 MB", "Maximum number of spans: 10,000".
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch-OTLPEndpoint.html
_SPAN_BYTES, _REQUEST_BYTES, _REQUEST_SPANS = 200_000, 5_000_000, 10_000
# The lengths at which the texts of a span are cut until it is small enough, in characters.
_CUTS = (20_000, 2_000, 200, 20)
_MAX_ATTRIBUTES = 128  # OpenTelemetry's default; of a span that is too large
_MAX_BITS = 2000  # Python's limit for conversion of an int to text can be set as low as 640 digits
_MIN_INT, _MAX_INT = -(2**63), 2**63 - 1
# SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK and SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK of trace.proto.
_LOCAL, _REMOTE = 0x100, 0x300
Redact = Callable[[str], str]
# Lone surrogates stay in the text, and the last step, to UTF-8, replaces them.
_quote = json.encoder.encode_basestring


class Encoder:
    """Encodes spans that have the same resource.

    Args:
        resource: the resource's attributes.
        redact: returns a text without keys. Programs choose names and attributes of spans, callers the `tracestate`.
    """

    def __init__(self, resource: Mapping[str, Any], redact: Redact = str) -> None:
        self._redact = redact
        url = _quote(SEMANTIC_CONVENTIONS)
        scope = f'{{"name":"dspy_lambda","version":{_quote(__version__)}}}'
        head = (
            f'{{"resourceSpans":[{{"resource":{{"attributes":[{_attributes(resource)}]}},"schemaUrl":{url},'
            f'"scopeSpans":[{{"scope":{scope},"schemaUrl":{url},"spans":['
        )
        self._head = head.encode(errors="replace")
        self._room = _REQUEST_BYTES - len(self._head) - len(_TAIL)

    def encode(self, spans: Iterable[Span]) -> Iterator[tuple[bytes, int]]:
        """Yield requests, each with its number of spans; none is larger than CloudWatch accepts. Never raises."""
        parts: list[bytes] = []
        size = 0
        for span in spans:
            data = _encode(span, self._redact)
            if size + len(data) >= self._room or len(parts) >= _REQUEST_SPANS:
                yield self._request(parts), len(parts)
                parts, size = [], 0
            parts.append(data)
            size += len(data) + 1
        if parts:
            yield self._request(parts), len(parts)

    def _request(self, parts: list[bytes]) -> bytes:
        return b"".join((self._head, b",".join(parts), _TAIL))


_TAIL = b"]}]}]}"


def _encode(span: Span, redact: Redact) -> bytes:
    try:
        # A copy, as a thread that was left behind may still add some.
        attributes = span.attributes.copy()
        if span.error is not None:
            attributes["error.type"] = span.error
        attributes = {_redacted(key, redact): _redacted(value, redact) for key, value in attributes.items()}
        data = _to_json(span, span.name, attributes, redact=redact)
        return data if len(data) <= _SPAN_BYTES else _shorten(span, attributes, redact)
    except Exception:  # from a value's own code, such as an `__iter__` that fails
        return _to_json(span, "unencodable", {}, len(span.attributes), redact)


def _redacted(value: Any, redact: Redact) -> Any:
    kind = type(value)
    if kind is int or kind is float:
        return value
    if isinstance(value, str):
        return redact(str.__str__(value))
    if isinstance(value, list | tuple):
        return [redact(str.__str__(item)) if isinstance(item, str) else item for item in value]
    return value


def _shorten(span: Span, attributes: dict[str, Any], redact: Redact = str) -> bytes:
    kept = dict(list(attributes.items())[:_MAX_ATTRIBUTES])
    name = redact(span.name)  # before a cut, which could leave part of a key
    for length in _CUTS:
        short = {_cut(key, length): _cut(value, length) for key, value in kept.items()}
        data = _to_json(span, _cut(name, length), short, len(attributes) - len(short), redact)
        if len(data) <= _SPAN_BYTES:
            return data
    return _to_json(span, _cut(name, _CUTS[-1]), {}, len(attributes), redact)


def _to_json(span: Span, name: str, attributes: dict[str, Any], dropped: int = 0, redact: Redact = str) -> bytes:
    trace, parent = span.trace, span.parent_id
    parts = [f'{{"traceId":"{trace.trace_id}","spanId":"{span.span_id}",']
    if parent:
        is_remote = parent == trace.parent_id
        parts.append(f'"parentSpanId":"{parent}","flags":{_REMOTE if is_remote else _LOCAL},')
    else:
        parts.append(f'"flags":{_LOCAL},')
    if trace.tracestate:
        parts.append(f'"traceState":{_quote(redact(trace.tracestate))},')
    if span.links:
        parts.append(f'"links":[{",".join(map(_link, span.links[:_MAX_ATTRIBUTES]))}],')
    if dropped:
        parts.append(f'"droppedAttributesCount":{dropped},')
    parts.append(
        f'"name":{_quote(redact(name))},"kind":{span.kind},"startTimeUnixNano":"{span.start_ns}",'
        f'"endTimeUnixNano":"{span.end_ns or span.start_ns}","attributes":[{_attributes(attributes)}],'
        f'"status":{{{"" if span.error is None else _ERROR}}}}}'
    )
    return "".join(parts).encode(errors="replace")


_ERROR = '"code":2'


def _link(link: tuple[str, str]) -> str:
    # The SDK marks a link to another process so; its sender's span always is one.
    return f'{{"traceId":"{link[0]}","spanId":"{link[1]}","flags":{_REMOTE}}}'


def _attributes(attributes: Mapping[str, Any]) -> str:
    parts = []
    quote = _quote
    for key, value in attributes.items():
        kind = type(value)
        if kind is str:
            parts.append(f'{{"key":{quote(key)},"value":{{"stringValue":{quote(value)}}}}}')
        elif value is not None and isinstance(key, str):
            parts.append(f'{{"key":{quote(key)},"value":{{{_value(value)}}}}}')
    return ",".join(parts)


def _value(value: Any) -> str:
    """Return the one field of an AnyValue. Text, numbers and lists of them; anything else is named by its class."""
    if isinstance(value, str):
        return f'"stringValue":{_quote(str.__str__(value))}'
    if isinstance(value, bool):
        return f'"boolValue":{"true" if value else "false"}'
    if isinstance(value, int):
        return _int(int.__index__(value))
    if isinstance(value, float):
        return f'"doubleValue":{_float(value)}'
    if isinstance(value, bytes):
        return f'"bytesValue":"{b64encode(value).decode()}"'
    if isinstance(value, list | tuple):
        # Only flat ones: a list may contain itself.
        items = ",".join(f"{{{_nested(item)}}}" for item in value if item is not None)
        return f'"arrayValue":{{"values":[{items}]}}'
    return f'"stringValue":{_quote(f"({type(value).__name__})")}'


def _nested(item: Any) -> str:
    return '"stringValue":"(list)"' if isinstance(item, list | tuple) else _value(item)


def _int(value: int) -> str:
    if _MIN_INT <= value <= _MAX_INT:
        return f'"intValue":"{value}"'
    # A number beyond 64 bits is none in OTLP.
    bits = value.bit_length()
    return f'"stringValue":"{value}"' if bits <= _MAX_BITS else f'"stringValue":"(an int of {bits} bits)"'


def _float(value: float) -> str:
    if math.isfinite(value):
        return float.__repr__(value)
    return '"NaN"' if math.isnan(value) else '"Infinity"' if value > 0 else '"-Infinity"'


def _cut(value: Any, length: int) -> Any:
    if isinstance(value, str | bytes):
        return value[:length]
    if isinstance(value, list | tuple):
        return [_cut(item, length) for item in value[: min(length, _MAX_ATTRIBUTES)]]
    return value
