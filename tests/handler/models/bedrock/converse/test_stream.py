"""Streamed answers, compared with botocore's reading of the same bytes."""

import base64
import itertools
import json

import pytest
from botocore.eventstream import EventStreamBuffer
from botocore.parsers import EventStreamJSONParser
from dspy.lm15 import (
    Config,
    Message,
    RateLimitError,
    Request,
    ServerError,
    TransportError,
    materialize_response,
)
from hypothesis import given
from hypothesis import strategies as st

from dspy_lambda.models.bedrock.converse.answer import response_of
from dspy_lambda.models.bedrock.converse.request import body_of
from dspy_lambda.models.bedrock.converse.stream import ConverseStream
from tests.handler.models.bedrock.bedrock_server import event, exception, frame, text_events
from tests.handler.models.bedrock.converse.oracle import STREAM

HIDDEN = base64.b64encode(b"hidden").decode()
REQUEST = Request(model="m", messages=(Message.user("q"),), config=Config())
USAGE = {"inputTokens": 3, "outputTokens": 4, "totalTokens": 7, "cacheReadInputTokens": 5}


def read(chunks, stream=None):
    stream = stream or ConverseStream("m")
    for chunk in chunks:
        yield from stream.feed(chunk)
    yield from stream.close()


def whole(chunks):
    return materialize_response(read(chunks), REQUEST)


def theirs(data):
    """Return the events as botocore reads them."""
    buffer = EventStreamBuffer()
    buffer.add_data(data)
    shape = STREAM.output_shape.members["stream"]
    return [EventStreamJSONParser().parse(item.to_response_dict(), shape) for item in buffer]


def deltas(index, *items):
    return [event("contentBlockDelta", {"contentBlockIndex": index, "delta": item}) for item in items]


def start(index, use):
    return event("contentBlockStart", {"contentBlockIndex": index, "start": {"toolUse": use}})


def answer(*blocks, stop="end_turn", usage=USAGE):
    """Return the events of an answer; each block is a list of its events."""
    found = [event("messageStart", {"role": "assistant"})]
    for index, block in enumerate(blocks):
        found += [*block, event("contentBlockStop", {"contentBlockIndex": index})]
    return [*found, event("messageStop", {"stopReason": stop}), event("metadata", {"usage": usage})]


def text_block(index, pieces):
    return {"text": "".join(pieces)}, deltas(index, *({"text": piece} for piece in pieces))


def tool_block(index, pieces):
    data = json.dumps({"value": "".join(pieces)}, ensure_ascii=False)
    third = len(data) // 3
    fragments = [{"toolUse": {"input": part}} for part in (data[:third], data[third : 2 * third], data[2 * third :])]
    use = {"toolUseId": f"t{index}", "name": "f"}
    block = {"toolUse": use | {"input": json.loads(data)}}
    return block, [start(index, use), *deltas(index, *fragments)]


def thinking_block(index, pieces):
    block = {"reasoningContent": {"reasoningText": {"text": "".join(pieces), "signature": "s"}}}
    items = [{"reasoningContent": {"text": piece}} for piece in pieces]
    return block, deltas(index, *items, {"reasoningContent": {"signature": "s"}})


def hidden_block(index, _):
    return (
        {"reasoningContent": {"redactedContent": HIDDEN}},
        deltas(index, {"reasoningContent": {"redactedContent": HIDDEN}}),
    )


KINDS = st.sampled_from([text_block, tool_block, thinking_block, hidden_block])
BLOCKS = st.lists(st.tuples(KINDS, st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=3)), max_size=4)


@given(BLOCKS, st.lists(st.integers(0, 10**6), max_size=6))
def test_a_streamed_answer_equals_the_whole_one(blocks, places):
    made = [kind(index, pieces) for index, (kind, pieces) in enumerate(blocks)]
    data = b"".join(answer(*(events for _, events in made)))
    assert all(len(item) == 1 for item in theirs(data))  # botocore knows every event of this stream
    ends = sorted({0, len(data), *(place % len(data) for place in places)})
    streamed = whole([data[a:b] for a, b in itertools.pairwise(ends)])
    complete = {"output": {"message": {"content": [block for block, _ in made]}}, "stopReason": "end_turn"}
    expected = response_of(complete | {"usage": USAGE}, "m")
    if made:
        assert streamed.message.parts == expected.message.parts
    assert streamed.finish_reason == expected.finish_reason
    assert streamed.usage == expected.usage


def test_streamed_reasoning_goes_into_the_next_request_as_it_came():
    blocks = [kind(index, ["a"]) for index, kind in enumerate((thinking_block, hidden_block, tool_block))]
    message = whole(answer(*(events for _, events in blocks), stop="tool_use")).message
    request = Request(model="m", messages=(Message.user("q"), message), config=Config())
    assert body_of(request, "m", takes_schemas=False)["messages"][1]["content"] == [block for block, _ in blocks]


def test_a_tool_call_without_arguments_is_called_with_none():
    use = {"toolUseId": "t", "name": "f"}
    (call,) = whole(answer([start(0, use), *deltas(0, {"toolUse": {"input": ""}})], stop="tool_use")).message.parts
    assert (call.id, call.name, call.input) == ("t", "f", {})


def test_a_tool_call_that_ends_a_turn_is_a_tool_call():
    events = list(read(answer([start(0, {"toolUseId": "t", "name": "f"})], stop="end_turn")))
    assert events[-1].finish_reason == "tool_call"


def test_citations_are_kept():
    citation = {"title": "A", "location": {"web": {"url": "https://example.com"}}, "sourceContent": [{"text": "b"}]}
    parts = whole(answer(deltas(0, {"text": "x"}, {"citation": citation}))).message.parts
    assert [part.type for part in parts] == ["text", "citation"]
    assert (parts[1].title, parts[1].url, parts[1].text) == ("A", "https://example.com", "b")


def test_unknown_events_and_deltas_are_ignored():
    odd = [event("hologramStart", {"a": 1}), *deltas(0, {"hologram": 1}, {}), event("contentBlockStart", {})]
    assert whole(answer([*odd, *deltas(0, {"text": "a"})])).message.text == "a"


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("throttlingException", RateLimitError),
        ("modelStreamErrorException", ServerError),
        ("internalServerException", ServerError),
        ("serviceUnavailableException", ServerError),
    ],
)
def test_an_exception_in_the_stream_is_its_typed_error(kind, error):
    chunks = [*text_events("a")[:2], exception(kind, "no more")]
    with pytest.raises(error, match="no more"):
        list(read(chunks))


def test_an_error_message_without_a_payload_is_an_error():
    headers = {":message-type": "error", ":error-code": "InternalFailure", ":error-message": "broken"}
    with pytest.raises(ServerError, match="broken"):
        list(read([frame(headers, b"")]))


@pytest.mark.parametrize("kept", [0, 1, 2, 3])
def test_a_truncated_stream_is_a_failed_connection(kept):
    with pytest.raises(TransportError, match="ended before the answer did"):
        list(read(text_events("a")[:kept]))


def test_a_stream_cut_within_an_event_is_a_failed_connection():
    with pytest.raises(TransportError, match="ended within a message"):
        list(read([b"".join(text_events("a"))[:-3]]))


def test_a_wrong_checksum_is_a_failed_connection():
    data = bytearray(b"".join(text_events("a")))
    data[-1] ^= 1
    with pytest.raises(TransportError, match="checksum"):
        list(read([bytes(data)]))


def test_a_stream_without_metadata_has_no_usage():
    answered = whole(text_events("a")[:-1])
    assert answered.message.text == "a"
    assert answered.usage.input_tokens is None


@pytest.mark.parametrize(
    "payload",
    [
        b"[]",
        b"1",
        b"{",
        b"\xff",
        b'{"delta": 1}',
        b'{"delta": {"toolUse": 1}}',
        b'{"contentBlockIndex": "x", "delta": {}}',
        b'{"delta": {"text": "a"}, "contentBlockIndex": -1}',
    ],
)
def test_an_event_that_cannot_be_read_is_a_servers_error(payload):
    headers = {":event-type": "contentBlockDelta", ":message-type": "event"}
    with pytest.raises(ServerError, match="cannot be read"):
        list(read([frame(headers, payload)]))


def test_a_tool_call_without_a_name_is_a_servers_error():
    with pytest.raises(ServerError, match="cannot be read"):
        list(read([start(0, {"toolUseId": "t"})]))


@pytest.mark.parametrize("body", [b"<html>Bad gateway</html>", b'{"message": "no"}', b"[1, 2, 3, 4, 5]", b""])
def test_another_body_is_a_failed_connection(body):
    with pytest.raises(TransportError):
        list(read([body]))
