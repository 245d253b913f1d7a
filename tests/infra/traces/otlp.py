"""Builds spans in OTLP's JSON, as an exporter sends them."""

TRACE = "6930a1b20123456789abcdef01234567"
REQUEST = "8f2b7a54-5f0e-4d55-9d53-0c7d5a4f7a11"
BEGIN = 1_790_000_000_000_000_000
RESOURCE = {"service.name": "qa", "faas.name": "QaFunction"}


def value(item):
    """Return an AnyValue; 64-bit integers are texts."""
    if isinstance(item, bool):
        return {"boolValue": item}
    if isinstance(item, int):
        return {"intValue": str(item)}
    if isinstance(item, float):
        return {"doubleValue": item}
    if isinstance(item, list):
        return {"arrayValue": {"values": [value(one) for one in item]}}
    return {"stringValue": item}


def attributes(named):
    return [{"key": key, "value": value(item)} for key, item in named.items()]


def span(span_id, parent, name, start, end, error=None, trace=TRACE, **more):
    """Return a span. `start` and `end` are milliseconds after BEGIN; in attributes' names, __ stands for a point."""
    named = {key.replace("__", "."): item for key, item in more.items()}
    if error:
        named["error.type"] = error
    return {
        "traceId": trace,
        "spanId": f"{span_id:016x}",
        **({"parentSpanId": f"{parent:016x}"} if parent else {}),
        "name": name,
        "kind": 1,
        "startTimeUnixNano": str(BEGIN + int(start * 1e6)),
        "endTimeUnixNano": str(BEGIN + int(end * 1e6)) if end is not None else "0",
        "attributes": attributes(named),
        "status": {"code": 2} if error else {},
    }


def request(*spans):
    """Return an ExportTraceServiceRequest."""
    resource = {"attributes": attributes(RESOURCE)}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": {"name": "t"}, "spans": list(spans)}]}]}


def call(request_id=REQUEST, trace=TRACE, first=1, later=0, **more):
    """Return the spans of an invocation with two model calls side by side; the second one fell back after a retry.

    Args:
        later: milliseconds after BEGIN.
    """
    usage = {"gen_ai__usage__input_tokens": 120, "gen_ai__usage__output_tokens": 30}
    told = {
        "faas__invocation_id": request_id,
        "dspy_lambda__correlation_id": f"c-{request_id}",
        "faas__coldstart": True,
    }
    workflow = {"dspy_lambda__model": "default", "dspy_lambda__outcome": "success"}
    sums = {"dspy_lambda__input_tokens": 240, "dspy_lambda__output_tokens": 60, "dspy_lambda__cost_usd": 0.00012}
    second = {"dspy_lambda__alias": "small", "dspy_lambda__fallback_from": "default", "dspy_lambda__attempts": 2}
    reason = {"dspy_lambda__fallback_reason": "rate_limited"}
    steps = [
        (0, "POST /Qa", 0, 1000, told),
        (1, "invoke_workflow Qa", 10, 990, {**workflow, **sums}),
        (2, "ChainOfThought", 20, 980, {"dspy_lambda__module": "think"}),
        (3, "chat gpt-4o-mini", 30, 500, {**usage, "dspy_lambda__cost_usd": 0.00012, "dspy_lambda__alias": "default"}),
        (3, "chat llama-3", 40, 900, {**usage, **second, **reason, **more}),
        (5, "attempt 1", 41, 300, {"error": "RateLimitError"}),
        (5, "attempt 2", 400, 900, {"dspy_lambda__retry_reason": "rate_limited"}),
        (3, "execute_tool search", 910, 970, {}),
    ]
    return [
        span(
            first + number, first + parent - 1 if parent else 0, name, later + start, later + end, trace=trace, **named
        )
        for number, (parent, name, start, end, named) in enumerate(steps)
    ]
