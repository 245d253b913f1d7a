from types import SimpleNamespace

import dspy
import pytest
from pydantic import BaseModel

from dspy_lambda.telemetry.export.otlp import Encoder
from dspy_lambda.telemetry.export.span_queue import BATCH_SPANS, MAX_SPANS, SpanQueue
from dspy_lambda.telemetry.traces.spans import INTERNAL, Trace


def spans(count, **attributes):
    trace = Trace()
    for _ in range(count):
        trace.start("s", INTERNAL, None, attributes).end()
    return trace.spans


def queue():
    return SpanQueue(Encoder({}))


def test_an_empty_queue_has_no_request():
    assert queue().take() is None


def test_a_request_counts_until_it_is_released():
    found = queue()
    assert found.put(spans(2))
    request = found.take()
    assert (request.spans, found.spans, found.bytes) == (2, 2, len(request.body))
    found.release(request)
    assert (found.spans, found.bytes, found.take()) == (0, 0, None)


def test_a_request_that_was_put_back_is_the_next_one():
    found = queue()
    found.put(spans(BATCH_SPANS))
    found.put(spans(1))
    first = found.take()
    found.put_back(first)
    assert found.take() is first
    assert found.take().spans == 1


def test_as_many_spans_go_in_as_there_is_room_for():
    found = queue()
    assert found.put(spans(MAX_SPANS - 1)) == MAX_SPANS - 1
    assert found.put(spans(3)) == 1
    before = found.spans, found.bytes
    assert found.put(spans(1)) == 0
    assert (found.spans, found.bytes) == before


def test_bytes_of_texts_count():
    found = queue()
    assert found.put(spans(3, texts=["x" * 4_000_000, "y" * 4_000_000])) == 2
    assert found.put(spans(1, text="x" * 4_000_000)) == 0


def test_payloads_become_attributes_before_spans_are_encoded():
    def prepare(found):
        for span in found:
            span.attributes |= span.payload
            span.payload = None

    found = SpanQueue(Encoder({}), prepare)
    (span,) = spans(1)
    span.payload = {"dspy_lambda.inputs": "what was asked"}
    found.put([span])
    assert b"what was asked" in found.take().body


@pytest.mark.parametrize(
    "hold",
    [
        lambda text: text,
        lambda text: [{"content": text}],
        lambda text: dspy.Prediction(answer=text),
        lambda text: SimpleNamespace(documents={text}),
    ],
)
def test_texts_of_payloads_count(hold):
    found = queue()
    several = spans(30)
    for number, span in enumerate(several):
        span.payload = {"dspy_lambda.outputs": hold(f"{number}" + "x" * 1_000_000)}
    assert 15 < found.put(several) < 20


def test_payloads_with_too_many_values_and_with_cycles_are_estimated():
    found = queue()
    (wide, cyclic) = spans(2)
    wide.payload = {"dspy_lambda.inputs": ["x" * 100] * 100_000}
    cycle = []
    cycle.append(cycle)
    cyclic.payload = {"dspy_lambda.inputs": cycle}
    assert found.put([cyclic]) == 1
    assert found.bytes < 5_000_000
    assert found.put([wide]) == 1
    assert found.bytes > 10_000_000


def test_spans_are_sent_without_payloads_if_these_cannot_be_written():
    def prepare(found):
        raise RuntimeError("dictionary changed size during iteration")

    found = SpanQueue(Encoder({}), prepare)
    (span,) = spans(1)
    span.payload = {"dspy_lambda.inputs": "text"}
    found.put([span])
    request = found.take()
    assert (request.spans, span.payload, b"text" in request.body) == (1, None, False)
    found.release(request)
    assert (found.spans, found.bytes) == (0, 0)


class Article(BaseModel):
    text: str


@pytest.mark.parametrize("wrap", [
    str, lambda text: [text], lambda text: dspy.Prediction(answer=text), lambda text: Article(text=text),
])  # fmt: skip
def test_texts_of_payloads_count_until_rules_have_made_attributes_of_them(wrap):
    seen = []
    found = SpanQueue(Encoder({}), lambda spans: seen.extend(span.payload for span in spans))
    some = spans(3)
    for span in some:
        span.payload = {"dspy_lambda.outputs": wrap("x" * 8_000_000)}
    assert found.put(some) == 2
    request = found.take()
    assert [list(payload) for payload in seen] == [["dspy_lambda.outputs"]] * 2
    assert [span.payload for span in some[:2]] == [None, None]
    assert found.bytes == len(request.body) < 10_000


def test_several_traces_share_a_request_up_to_its_size():
    found = queue()
    for _ in range(4):
        found.put(spans(200))
    counts = []
    while (request := found.take()) is not None:
        counts.append(request.spans)
    assert counts == [600, 200]


def test_whoever_cannot_get_the_lock_is_told_so_soon():
    found = queue()
    with found._lock:
        assert not found.put(spans(1))
