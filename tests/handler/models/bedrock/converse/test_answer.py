"""Answers, compared with botocore's reading of the same bytes."""

import base64
import json

import pytest
from dspy.lm15 import Config, Message, Request, ServerError
from hypothesis import given
from hypothesis import strategies as st

from dspy_lambda.models.bedrock.converse.answer import finish_reason, response_of, usage_of
from dspy_lambda.models.bedrock.converse.request import body_of
from tests.handler.models.bedrock.converse.oracle import CONVERSE, check, parsed

STOPS = CONVERSE.output_shape.members["stopReason"].enum
IMAGE = base64.b64encode(b"an image").decode()
HIDDEN = base64.b64encode(b"hidden").decode()

words = st.text(max_size=10)
citations = st.fixed_dictionaries(
    {},
    optional={
        "title": words,
        "sourceContent": st.lists(st.builds(dict, text=words), max_size=2),
        "location": st.just({"web": {"url": "https://example.com", "domain": "example.com"}}),
    },
)
inputs = st.dictionaries(words, st.none() | st.integers() | words | st.lists(words, max_size=2), max_size=2)
blocks = st.one_of(
    st.builds(dict, text=words),
    st.builds(lambda value: {"toolUse": {"toolUseId": "t1", "name": "f", "input": value}}, inputs),
    st.builds(lambda text: {"reasoningContent": {"reasoningText": {"text": text, "signature": "s"}}}, words),
    st.builds(lambda text: {"reasoningContent": {"reasoningText": {"text": text}}}, words),
    st.just({"reasoningContent": {"redactedContent": HIDDEN}}),
    st.just({"image": {"format": "png", "source": {"bytes": IMAGE}}}),
    st.builds(
        lambda texts, found: {"citationsContent": {"content": [{"text": text} for text in texts], "citations": found}},
        st.lists(words, max_size=2),
        st.lists(citations, max_size=2),
    ),
)
counts = st.fixed_dictionaries(
    {"inputTokens": st.integers(0, 99), "outputTokens": st.integers(0, 99), "totalTokens": st.integers(0, 99)},
    optional={"cacheReadInputTokens": st.integers(0, 99), "cacheWriteInputTokens": st.integers(0, 99)},
)


def answer(content, stop="end_turn", usage=None):
    return {
        "output": {"message": {"role": "assistant", "content": content}},
        "stopReason": stop,
        "usage": usage or {"inputTokens": 1, "outputTokens": 2, "totalTokens": 3},
        "metrics": {"latencyMs": 1},
    }


def expected(block):
    """Return what a block that botocore has read must become: comparable values of parts."""
    if "text" in block:
        return [("text", block["text"])]
    if "toolUse" in block:
        use = block["toolUse"]
        return [("tool_call", use["toolUseId"], use["name"], use["input"])]
    if "reasoningContent" in block:
        content = block["reasoningContent"]
        text = content.get("reasoningText", {})
        return [("thinking", text.get("text", ""), text.get("signature"), content.get("redactedContent"))]
    if "image" in block:
        return [("image", "image/" + block["image"]["format"], block["image"]["source"]["bytes"])]
    content = block["citationsContent"]
    found = [("text", "".join(item["text"] for item in content["content"]))]
    for item in content["citations"]:
        source = "".join(part["text"] for part in item.get("sourceContent", []))
        fields = (item.get("location", {}).get("web", {}).get("url"), item.get("title") or None, source or None)
        if any(fields):
            found.append(("citation", *fields))
    return found


def comparable(part):
    if part.type == "text":
        return "text", part.text
    if part.type == "tool_call":
        return "tool_call", part.id, part.name, part.input
    if part.type == "thinking":
        data = {key: value for state in part.continuation for key, value in state.data.items()}
        hidden = data.get("data")
        return "thinking", part.text, data.get("signature"), base64.b64decode(hidden) if hidden else None
    if part.type == "image":
        return "image", part.media_type, part.bytes
    return "citation", part.url, part.title, part.text


@given(st.lists(blocks, max_size=5), st.sampled_from(STOPS), counts)
def test_answers_are_read_as_botocore_reads_them(content, stop, usage):
    body = json.dumps(answer(content, stop, usage)).encode()
    theirs = parsed(body)
    ours = response_of(json.loads(body), "m")
    wanted = [part for block in theirs["output"]["message"]["content"] for part in expected(block)]
    assert [comparable(part) for part in ours.message.parts] == (wanted or [("text", "")])
    found = theirs["usage"]
    cached = found.get("cacheReadInputTokens", 0), found.get("cacheWriteInputTokens", 0)
    assert ours.usage.input_tokens == found["inputTokens"] + sum(cached)
    assert ours.usage.output_tokens == found["outputTokens"]
    assert (ours.usage.cache_read_tokens or 0, ours.usage.cache_write_tokens or 0) == cached
    assert ours.provider_data["stopReason"] == theirs["stopReason"]


@given(st.lists(blocks, min_size=1, max_size=4))
def test_an_answer_goes_into_the_next_request_as_it_came(content):
    message = response_of(answer(content), "m").message
    request = Request(model="m", messages=(Message.user("q"), message, Message.user("more")), config=Config())
    check(body_of(request, "m", takes_schemas=False))


def test_reasoning_comes_back_with_its_signature():
    content = [
        {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "s"}}},
        {"reasoningContent": {"redactedContent": HIDDEN}},
        {"toolUse": {"toolUseId": "t1", "name": "f", "input": {}}},
    ]
    message = response_of(answer(content, "tool_use"), "m").message
    request = Request(model="m", messages=(Message.user("q"), message), config=Config())
    assert body_of(request, "m", takes_schemas=False)["messages"][1]["content"] == content


@pytest.mark.parametrize("stop", STOPS)
def test_each_stop_reason_has_a_name_at_dspy(stop):
    names = {
        "end_turn": "stop",
        "stop_sequence": "stop",
        "tool_use": "tool_call",
        "max_tokens": "length",
        "model_context_window_exceeded": "length",
        "guardrail_intervened": "content_filter",
        "content_filtered": "content_filter",
        "malformed_model_output": "error",
        "malformed_tool_use": "error",
    }
    assert finish_reason(stop) == names[stop]


def test_a_tool_call_that_ends_a_turn_is_a_tool_call():
    assert finish_reason("end_turn", has_tool_call=True) == "tool_call"
    assert finish_reason("max_tokens", has_tool_call=True) == "length"
    assert finish_reason("of next year") == "stop"


def test_unknown_blocks_are_ignored():
    content = [{"hologram": {"bytes": IMAGE}}, {"text": "a"}, {"video": {"format": "mp4"}}, "no block", None]
    assert [part.text for part in response_of(answer(content), "m").message.parts] == ["a"]


@pytest.mark.parametrize(
    "data",
    [
        [],
        {},
        None,
        {"output": {}},
        {"output": {"message": {"content": "text"}}, "stopReason": "end_turn"},
        {"output": {"message": {"content": []}}},
        {"Output": {"__type": "com.amazon.coral.service#UnknownOperationException"}, "Version": "1.0"},
        answer([{"toolUse": {"input": {}}}]),
        answer([{"toolUse": {"toolUseId": 3, "name": "f", "input": {}}}]),
        answer([{"image": {"format": "png", "source": {"bytes": "no base64!"}}}]),
    ],
    ids=str,
)
def test_what_is_not_an_answer_of_converse_is_a_servers_error(data):
    with pytest.raises(ServerError):
        response_of(data, "m")


@pytest.mark.parametrize("usage", [None, [], {"inputTokens": "5"}, {"inputTokens": -1}, {"inputTokens": True}])
def test_unusable_counts_are_unknown(usage):
    assert usage_of(usage).input_tokens is None
