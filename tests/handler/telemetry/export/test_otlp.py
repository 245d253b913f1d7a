"""OTLP as OpenTelemetry's own decoder and encoder understand it."""

import base64
import json
import math
import os

import pytest
from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from dspy_lambda import __version__
from dspy_lambda.telemetry.export.otlp import Encoder
from dspy_lambda.telemetry.traces.spans import CLIENT, CONSUMER, INTERNAL, SEMANTIC_CONVENTIONS, SERVER, Trace

SCALE = int(os.environ.get("STRESS_SCALE", "1"))
RESOURCE = {"service.name": "qa", "faas.max_memory": 512 * 2**20, "cloud.region": "eu-west-1"}
KINDS = {INTERNAL: SpanKind.INTERNAL, SERVER: SpanKind.SERVER, CLIENT: SpanKind.CLIENT, CONSUMER: SpanKind.CONSUMER}


def decode(body):
    """Decode as a collector does, with the same ids as bytes that the binary form has.

    OTLP's JSON has ids as hexadecimal digits, where protobuf's own mapping has base64: every decoder converts them.
    """
    document = json.loads(body)
    for resource in document["resourceSpans"]:
        for scope in resource["scopeSpans"]:
            for span in scope["spans"]:
                for holder in (span, *span.get("links", ())):
                    for name in ("traceId", "spanId", "parentSpanId"):
                        if name in holder:
                            holder[name] = to_base64(holder[name])
    return json_format.ParseDict(document, ExportTraceServiceRequest(), ignore_unknown_fields=False)


def to_base64(digits):
    return base64.b64encode(bytes.fromhex(digits)).decode()


def encode(trace):
    return list(Encoder(RESOURCE).encode(trace.spans))


def only_span(body):
    (resource,) = decode(body).resource_spans
    (scope,) = resource.scope_spans
    (span,) = scope.spans
    return span


def context(trace_id, span_id, *, remote, tracestate=""):
    state = TraceState.from_header([tracestate]) if tracestate else None
    return SpanContext(int(trace_id, 16), int(span_id, 16), remote, TraceFlags(1), state)


def as_sdk(span):
    """The same span as an object of the SDK."""
    trace = span.trace
    parent = span.parent_id and context(trace.trace_id, span.parent_id, remote=span.parent_id == trace.parent_id)
    errors = {} if span.error is None else {"error.type": span.error}
    return ReadableSpan(
        span.name,
        context(trace.trace_id, span.span_id, remote=False, tracestate=trace.tracestate),
        parent or None,
        Resource(RESOURCE, SEMANTIC_CONVENTIONS),
        {**span.attributes, **errors},
        (),
        [Link(context(*link, remote=True)) for link in span.links],
        KINDS[span.kind],
        status=Status(StatusCode.UNSET if span.error is None else StatusCode.ERROR),
        start_time=span.start_ns,
        end_time=span.end_ns,
        instrumentation_scope=InstrumentationScope("dspy_lambda", __version__, SEMANTIC_CONVENTIONS),
    )


def test_requests_are_equal_to_the_sdks_for_the_same_spans():
    trace = Trace(parent_id="00f067aa0ba902b7", tracestate="vendor=value,other=1")
    root = trace.start("POST /Answer", SERVER, trace.parent_id, {"faas.coldstart": True, "faas.trigger": "http"})
    record = root.child("process record", CONSUMER, {"messaging.system": "aws_sqs"})
    record.links = (("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"),)
    call = record.child("chat m", CLIENT, {"gen_ai.usage.input_tokens": 12, "dspy_lambda.cost_usd": 1.5e-7})
    tags = {"text": ['a"b', "\u2028 ü 🚀"], "ints": [1, 2], "flags": [True, False], "floats": [0.5], "none": []}
    tool = call.child("execute_tool f", INTERNAL, tags)
    for span in (tool, call, record, root):
        span.end("RateLimitError" if span is call else None)

    ((body, count),) = encode(trace)

    assert count == 4
    assert decode(body) == encode_spans([as_sdk(span) for span in trace.spans])


@settings(max_examples=60 * SCALE, deadline=None)
@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"])),
        st.one_of(
            st.text(st.characters(exclude_categories=["Cs"])),
            st.booleans(),
            st.integers(-(2**63), 2**63 - 1),
            st.floats(allow_nan=False),
            st.lists(st.integers(-(2**63), 2**63 - 1)),
            st.binary(),
        ),
        max_size=8,
    )
)
def test_attributes_are_equal_to_the_sdks(attributes):
    span = Trace().start("s", INTERNAL, None, attributes)
    span.end()
    ((body, _),) = encode(span.trace)
    assert decode(body) == encode_spans([as_sdk(span)])


ANYTHING = st.recursive(
    st.one_of(st.none(), st.text(), st.floats(), st.integers(), st.binary(), st.complex_numbers(), st.dates()),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner), st.tuples(inner)),
    max_leaves=6,
)


@settings(max_examples=60 * SCALE, deadline=None)
@given(
    st.dictionaries(st.one_of(st.text(), st.integers(), st.none(), st.binary()), ANYTHING),
    st.text(st.characters(categories=["Cs", "Cc", "Ll"])),
)
def test_whatever_a_span_holds_a_collector_can_read_it(attributes, name):
    span = Trace().start(name, INTERNAL, None, attributes)
    ((body, _),) = encode(span.trace)
    kept = {attribute.key for attribute in only_span(body).attributes}
    assert len(kept) <= len(attributes)


class Unreadable(list):
    def __iter__(self):
        raise RuntimeError("from the value's own code")


class Word(str):
    def __str__(self):
        raise RuntimeError("from the value's own code")


@pytest.mark.parametrize(
    ("value", "field", "expected"),
    [
        ("\ud800 lone", "string_value", "? lone"),
        (math.inf, "double_value", math.inf),
        (2**63, "string_value", str(2**63)),
        (10**5000, "string_value", f"(an int of {(10**5000).bit_length()} bits)"),
        (Word("text"), "string_value", "text"),
        ({"a": 1}, "string_value", "(dict)"),
    ],
    ids=["surrogate", "infinity", "65 bits", "5,000 digits", "subclass", "dict"],
)
def test_odd_values(value, field, expected):
    span = Trace().start("s", INTERNAL, None, {"value": value})
    ((body, _),) = encode(span.trace)
    (attribute,) = only_span(body).attributes
    assert getattr(attribute.value, field) == expected


def test_not_a_number_stays_one():
    span = Trace().start("s", INTERNAL, None, {"value": math.nan})
    ((body, _),) = encode(span.trace)
    assert math.isnan(only_span(body).attributes[0].value.double_value)


def test_a_list_that_contains_itself():
    value = [1]
    value.append(value)
    ((body, _),) = encode(Trace().start("s", INTERNAL, None, {"value": value}).trace)
    assert only_span(body).attributes[0].value.array_value.values[1].string_value == "(list)"


def test_a_span_with_a_value_that_fails_loses_its_attributes_only():
    span = Trace().start("s", INTERNAL, None, {"value": Unreadable([1]), "other": 1})
    ((body, count),) = encode(span.trace)
    found = only_span(body)
    assert (count, found.dropped_attributes_count, found.span_id.hex()) == (1, 2, span.span_id)


@pytest.mark.parametrize(
    "attributes",
    [
        {"gen_ai.input.messages": "x" * 300_000, "short": "y"},
        {f"k{n}": "\0" * 100 for n in range(2_000)},
        {f"k{n}": ["\0" * 100] * 100 for n in range(200)},
        {"ü" * 100_000: 1, "u": "🚀" * 70_000},
    ],
)
def test_a_span_above_200_kb_is_cut(attributes):
    ((body, _),) = encode(Trace().start("s" * 250_000, INTERNAL, None, attributes).trace)
    assert len(body) < 201_000
    assert only_span(body).name.startswith("s")


def test_a_cut_span_keeps_its_short_attributes():
    attributes = {"gen_ai.input.messages": "x" * 300_000, "short": "y"}
    ((body, _),) = encode(Trace().start("s", INTERNAL, None, attributes).trace)
    values = {attribute.key: attribute.value.string_value for attribute in only_span(body).attributes}
    assert values["short"] == "y"
    assert values["gen_ai.input.messages"] == "x" * 20_000


def test_requests_are_split_at_5_mb_and_lose_nothing():
    trace = Trace()
    for number in range(60):
        trace.start(f"span {number}", INTERNAL, None, {"text": "x" * 150_000})
    requests = encode(trace)
    assert len(requests) > 1
    assert max(len(body) for body, _ in requests) <= 5_000_000
    names = [span.name for body, _ in requests for span in decode(body).resource_spans[0].scope_spans[0].spans]
    assert names == [f"span {number}" for number in range(60)]
    assert sum(count for _, count in requests) == 60


def test_requests_are_split_at_10_000_spans():
    span = Trace().start("s", INTERNAL, None, {})
    counts = [count for _, count in Encoder({}).encode([span] * 10_001)]
    assert counts == [10_000, 1]
