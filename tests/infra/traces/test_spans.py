import json

import pytest

from dspy_lambda_infra.traces.spans import documents, span, spans
from tests.infra.traces.otlp import BEGIN, REQUEST, RESOURCE, TRACE, call, request
from tests.infra.traces.otlp import span as otlp

# As the log group aws/spans has it.
CLOUDWATCH = {
    "resource": {"attributes": RESOURCE},
    "scope": {"name": "dspy-lambda"},
    "traceId": TRACE,
    "spanId": "00000000000000aa",
    "parentSpanId": "00000000000000ab",
    "name": "chat gpt",
    "kind": "CLIENT",
    "startTimeUnixNano": BEGIN,
    "endTimeUnixNano": BEGIN + 1_000_000,
    "attributes": {"gen_ai.usage.input_tokens": 3, "error.type": "deadline"},
    "status": {"code": "ERROR"},
}


def test_exported_spans_are_read_with_their_attributes_and_resource():
    first, second, *_ = spans(request(*call()))
    assert (first.name, first.trace_id, first.parent_id) == ("POST /Qa", TRACE, "")
    assert first.ids == {REQUEST, f"c-{REQUEST}"}
    assert (first.start_ns, first.end_ns) == (BEGIN, BEGIN + 1_000_000_000)
    assert first.attributes["faas.coldstart"] is True
    assert first.resource == RESOURCE
    assert second.attributes["dspy_lambda.input_tokens"] == 240
    assert second.attributes["dspy_lambda.cost_usd"] == 0.00012
    assert second.parent_id == first.span_id


def test_cloudwatchs_form_of_a_span_is_read_alike():
    (found,) = spans(CLOUDWATCH)
    assert (found.error, found.resource) == ("deadline", RESOURCE)
    assert found.attributes["gen_ai.usage.input_tokens"] == 3
    assert found.end_ns - found.start_ns == 1_000_000


def test_the_observers_answer_is_read():
    resource = request()["resourceSpans"][0]["resource"]
    (found,) = spans({"spans": [{**otlp(1, 0, "a", 0, 1, tags=["x", "y"]), "resource": resource}]})
    assert (found.resource, found.attributes["tags"]) == (RESOURCE, ["x", "y"])


@pytest.mark.parametrize(
    "document",
    [
        None,
        3,
        "text",
        {},
        [],
        {"resourceSpans": None},
        {"resourceSpans": [None, {}, {"scopeSpans": [3, {"spans": {}}]}]},
        {"spans": [{}, 3]},
        {**CLOUDWATCH, "startTimeUnixNano": "soon"},
        {**CLOUDWATCH, "startTimeUnixNano": "9" * 400},
        {**CLOUDWATCH, "endTimeUnixNano": -1},
        {**CLOUDWATCH, "traceId": 3},
        {**CLOUDWATCH, "attributes": [{"key": "n", "value": {"intValue": "x"}}]},
    ],
)
def test_what_is_no_span_is_left_out(document):
    assert list(spans(document)) == []


def test_unfinished_spans_are_known():
    assert span(otlp(1, 0, "a", 0, None), None).is_unfinished
    assert span(otlp(1, 0, "a", 0, 5, error="unfinished"), None).is_unfinished
    assert not span(otlp(1, 0, "a", 0, 5, error="deadline"), None).is_unfinished


@pytest.mark.parametrize("indent", [None, 2])
def test_documents_are_one_in_each_line_or_one_over_all(indent):
    text = json.dumps(request(*call()), indent=indent).encode()
    copies = 1 if indent else 3
    lines = iter(((text + b"\n") * copies).splitlines(keepends=True))
    assert [len(list(spans(found))) for found in documents(lines)] == [8] * copies


def test_lines_between_documents_that_are_none_are_left_out():
    text = json.dumps(request(*call())).encode()
    lines = iter([b"garbage\n", text + b"\n", b"\xff\n", b"\n", text + b"\n", text[:50]])
    assert [len(list(spans(found))) for found in documents(lines)] == [8, 8]


def test_documents_without_a_mark_are_left_out():
    texts = [json.dumps(request(span)).encode() + b"\n" for span in otlp_spans()]
    assert [next(spans(found)).name for found in documents(iter(texts), {b"b-mark"})] == ["B-Mark"]
    whole = json.dumps([request(span) for span in otlp_spans()], indent=1).encode().splitlines(keepends=True)
    assert [len(list(spans(found))) for found in documents(iter(whole), {b"b-mark"})] == [3]
    assert list(documents(iter(whole), {b"none"})) == []


def otlp_spans():
    return [otlp(n, 0, name, 0, 1) for n, name in enumerate(["a", "c", "B-Mark"])]
