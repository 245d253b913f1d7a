"""The trace context that an event brings: its HTTP headers, its records' senders, or Lambda's own header."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dspy_lambda.telemetry.traces.context import Incoming, from_headers, from_traceparent, from_x_ray

_NAMES = ("traceparent", "tracestate", "x-amzn-trace-id")
_LAMBDAS_OWN = "_X_AMZN_TRACE_ID"


def caller_of(event: Any, context: Any, environ: Mapping[str, str]) -> Incoming | None:
    """Return the context that an invocation continues; None if it starts a trace.

    Args:
        context: Lambda's context, in which a direct caller may send `traceparent` (`ClientContext`, key `custom`).
        environ: the process's variables: Lambda sets its X-Ray header there for each invocation.
    """
    headers = _headers(event) if isinstance(event, dict) else {}
    custom = getattr(getattr(context, "client_context", None), "custom", None)
    if isinstance(custom, dict):
        headers |= {name: custom[name] for name in _NAMES if name in custom}
    found, own = from_headers(headers), _lambdas_own(environ.get(_LAMBDAS_OWN))
    if found is None:
        return own
    # A gateway passes on the root alone. Lambda's segment of the same trace is nearer, and knows X-Ray's decision.
    # https://docs.aws.amazon.com/xray/latest/devguide/xray-concepts.html#xray-concepts-tracingheader
    is_same = own is not None and own.parent_id and own.trace_id == found.trace_id and found.sampled is not False
    return Incoming(own.trace_id, own.parent_id, own.sampled, found.state) if own is not None and is_same else found


def _lambdas_own(header: str | None) -> Incoming | None:
    """Read Lambda's own header. Without X-Ray, it says `Sampled=0` although nobody has decided anything.

    Its parent is a segment that exists only if X-Ray keeps it.
    """
    found = from_x_ray(header)
    return found if found is None or found.sampled else Incoming(found.trace_id, None, None)


def _headers(event: dict[str, Any]) -> dict[str, Any]:
    """Return the trace headers of an HTTP event; API Gateway REST keeps the client's upper and lower case."""
    found: dict[str, Any] = {}
    for part in ("multiValueHeaders", "headers"):
        headers = event.get(part)
        for name, value in headers.items() if isinstance(headers, dict) else ():
            if isinstance(name, str) and (lower := name.lower()) in _NAMES:
                found[lower] = value[-1] if isinstance(value, list) and value else value
    return found


def senders_of(event: Any) -> dict[str, tuple[str, str]]:
    """Return, by message id, the trace and span that sent each SQS record, where it says so.

    SQS puts a sender's X-Ray header into the attribute AWSTraceHeader; OpenTelemetry's SDKs send `traceparent` as a
    message attribute.
    """
    found = {}
    records = event.get("Records") if isinstance(event, dict) else None
    for raw in records if isinstance(records, list) else ():
        sender = _sender(raw) if isinstance(raw, dict) else None
        identifier = raw.get("messageId") if sender else None
        if sender and sender.parent_id and isinstance(identifier, str):
            found[identifier] = (sender.trace_id, sender.parent_id)
    return found


def _sender(raw: dict[str, Any]) -> Incoming | None:
    sent, attributes = raw.get("messageAttributes"), raw.get("attributes")
    header = sent.get("traceparent") if isinstance(sent, dict) else None
    found = from_traceparent(header.get("stringValue")) if isinstance(header, dict) else None
    return found or from_x_ray(attributes.get("AWSTraceHeader") if isinstance(attributes, dict) else None)
