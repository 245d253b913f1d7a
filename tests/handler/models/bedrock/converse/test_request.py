"""Requests as Converse takes them: accepted by botocore's validator, and equal to what botocore would send."""

import json
import os

import pytest
from dspy._vendor.lm15.adaptation import collecting
from dspy.lm15 import (
    AudioPart,
    BuiltinTool,
    CacheConfig,
    Config,
    DataPart,
    DocumentPart,
    FunctionTool,
    ImagePart,
    Message,
    Reasoning,
    Request,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolChoice,
    ToolResultPart,
    UnsupportedFeatureError,
    VideoPart,
)
from dspy.lm15 import ContinuationState as State
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dspy_lambda.models.bedrock.converse.request import body_of
from dspy_lambda.models.bedrock.signing import model_path
from tests.handler.models.bedrock.converse.oracle import check, serialized

EXAMPLES = 50 * int(os.environ.get("STRESS_SCALE", "1"))
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
DATA = "iVBORw0KGgo="
IDS = (
    "amazon.nova-lite-v1:0",
    "us.amazon.nova-2-lite-v1:0",
    "anthropic.claude-3-5-haiku-20241022-v1:0",
    "us.anthropic.claude-opus-4-7",
    "meta.llama3-70b-instruct-v1:0",
    "openai.gpt-oss-120b-1:0",
)

texts = st.one_of(st.text(max_size=20), st.sampled_from(["", " ", "\n\t", "\u00a0"]))
names = st.from_regex(r"[a-zA-Z0-9_-]{1,64}", fullmatch=True)
objects = st.dictionaries(st.text(max_size=5), st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5))
states = st.sampled_from(
    [
        (),
        (State(provider="bedrock", kind="thinking_signature", data={"signature": "s"}),),
        (State(provider="bedrock", kind="redacted_thinking", data={"data": DATA}),),
        (State(provider="anthropic", kind="thinking_signature", data={"signature": "s"}),),
    ]
)


def media(kind, types, url):
    return st.one_of(
        st.builds(kind, media_type=st.sampled_from(types), data=st.just(DATA)),
        st.builds(kind, media_type=st.sampled_from(types), url=st.just(url)),
    )


images = media(ImagePart, ["image/png", "image/jpeg", "image/JPG", "image/gif", "image/webp"], "s3://bucket/a.png")
documents = media(DocumentPart, ["application/pdf", "text/csv", "text/plain; charset=utf-8"], "s3://bucket/a.pdf")
videos = media(VideoPart, ["video/mp4", "video/3gpp", "video/quicktime"], "s3://bucket/a")
sounds = media(AudioPart, ["audio/wav", "audio/mpeg", "audio/ogg"], "s3://bucket/a")
text_parts = st.builds(TextPart, text=texts)
data_parts = st.builds(DataPart, value=objects)
ids = st.one_of(names, st.text(min_size=1, max_size=80))
calls = st.builds(ToolCallPart, id=ids, name=names, input=objects)
contents = st.lists(st.one_of(text_parts, images, documents, videos, data_parts), min_size=1, max_size=3).map(tuple)
results = st.builds(ToolResultPart, id=ids, content=contents, is_error=st.booleans())
thoughts = st.builds(ThinkingPart, text=texts, continuation=states)


def message(role, *parts):
    return st.builds(Message, role=st.just(role), parts=st.lists(st.one_of(*parts), min_size=1, max_size=3).map(tuple))


messages = st.one_of(
    message("user", text_parts, images, documents, sounds, videos, data_parts),
    message("assistant", text_parts, calls, thoughts),
    message("tool", results),
    message("developer", text_parts),
)
tools = st.builds(
    FunctionTool, name=names, description=st.none() | st.just(" ") | st.text(min_size=1), parameters=st.just(SCHEMA)
)
formats = st.sampled_from(
    [None, {"type": "json_object"}, {"type": "json_schema", "name": "answer", "schema": SCHEMA, "strict": True}]
)
caches = st.one_of(
    st.none(),
    st.sampled_from([CacheConfig(), CacheConfig(mode="off"), CacheConfig(prefix="history", retention="long")]),
    st.builds(CacheConfig, prefix_until_index=st.integers(0, 6)),
)
extensions = st.sampled_from(
    [
        None,
        {"guardrailConfig": {"guardrailIdentifier": "abc123", "guardrailVersion": "DRAFT", "trace": "enabled"}},
        {"performanceConfig": {"latency": "optimized"}, "requestMetadata": {"team": "search"}},
        {"thinking": {"type": "enabled", "budget_tokens": 2048}},
        {"additionalModelRequestFields": {"a": [1]}, "other": 1, "logit_bias": {"1": 1}},
    ]
)


@st.composite
def requests(draw):
    found = draw(st.lists(tools, max_size=2, unique_by=lambda tool: tool.name))
    choices = [None, ToolChoice(mode="auto")]
    if found:
        choices += [
            ToolChoice(mode="none"),
            ToolChoice(mode="required"),
            ToolChoice(mode="required", allowed=(found[0].name,)),
            ToolChoice(mode="auto", allowed=(found[-1].name,)),
        ]
    config = Config(
        max_tokens=draw(st.none() | st.integers(1, 9999)),
        temperature=draw(st.none() | st.floats(0, 2)),
        top_p=draw(st.none() | st.floats(0.5, 1)),
        top_k=draw(st.none() | st.integers(1, 500)),
        stop=tuple(draw(st.lists(st.text(min_size=1, max_size=5), max_size=3))),
        response_format=draw(formats),
        tool_choice=draw(st.sampled_from(choices)),
        reasoning=draw(st.none() | st.sampled_from([Reasoning(name) for name in ("off", "minimal", "high", "max")])),
        cache=draw(caches),
        seed=draw(st.none() | st.just(1)),
        service_tier=draw(st.sampled_from([None, "auto", "flex"])),
        user_id=draw(st.none() | st.just("u")),
        logprobs=draw(st.none() | st.just(2)),
        extensions=draw(extensions),
    )
    system = draw(st.none() | texts.filter(bool))
    model = draw(st.sampled_from(IDS))
    return Request(
        model=model,
        messages=tuple(draw(st.lists(messages, min_size=1, max_size=6))),
        system=system,
        tools=tuple(found),
        config=config,
    )


def body(request, *, takes_schemas=True):
    with collecting("note", provider="bedrock"):
        return body_of(request, request.model, takes_schemas=takes_schemas)


def ask(*messages_, model="anthropic.claude-3-haiku", **options):
    tools_ = options.pop("tools", ())
    system = options.pop("system", None)
    messages_ = messages_ or (Message.user("q"),)
    return body(Request(model=model, messages=messages_, system=system, tools=tools_, config=Config(**options)))


@settings(max_examples=EXAMPLES)
@given(requests(), st.booleans(), st.sampled_from([*IDS, "arn:aws:bedrock:eu-west-1:1:inference-profile/eu.a-v1:0"]))
@example(Request(model="m", messages=(Message.assistant("a"), Message.assistant("b"))), True, "m")
@example(Request(model="m", messages=(Message.user(" "),)), True, "m")
def test_requests_are_accepted_and_equal_those_of_botocore(request, takes_schemas, model):
    made = body(request, takes_schemas=takes_schemas)
    parameters = check(made) | {"modelId": model}
    for stream, operation in ((False, "converse"), (True, "converse-stream")):
        path, sent = serialized(parameters, stream=stream)
        assert path == model_path(model, operation)
        assert json.loads(sent) == made


def test_a_thinking_claude_gets_no_temperature_and_no_forced_tool():
    tool = FunctionTool(name="f", parameters=SCHEMA)
    made = ask(
        reasoning=Reasoning("low", thinking_budget=2000),
        temperature=0.3,
        top_p=0.9,
        top_k=5,
        max_tokens=100,
        tools=(tool,),
        tool_choice=ToolChoice(mode="required"),
    )
    assert made["inferenceConfig"] == {"maxTokens": 2100}
    assert made["additionalModelRequestFields"] == {"thinking": {"type": "enabled", "budget_tokens": 2000}}
    assert "toolChoice" not in made["toolConfig"]


@pytest.mark.parametrize(
    ("thought", "thinks"), [((), False), ((State("bedrock", "thinking_signature", {"signature": "s"}),), True)]
)
def test_claude_does_not_think_on_after_a_tool_call_without_its_thoughts(thought, thinks):
    call, result = ToolCallPart(id="1", name="f", input={}), ToolResultPart(id="1", content=(TextPart("r"),))
    made = ask(
        Message.user("a"),
        Message("assistant", parts=(ThinkingPart("t", continuation=thought), call)),
        Message("tool", parts=(result,)),
        reasoning=Reasoning("low", thinking_budget=2000),
        max_tokens=100,
    )
    assert ("additionalModelRequestFields" in made, made["inferenceConfig"]) == (
        thinks,
        {"maxTokens": 2100 if thinks else 100},
    )


def test_cache_points_follow_what_repeats():
    point = {"cachePoint": {"type": "default"}}
    assert ask(system="s", cache=CacheConfig())["system"][-1] == point
    tool = FunctionTool(name="f", parameters=SCHEMA)
    assert ask(tools=(tool,), cache=CacheConfig())["toolConfig"]["tools"][-1] == point
    history = ask(Message.user("a"), cache=CacheConfig(prefix="history", retention="long"))
    assert history["messages"][-1]["content"][-1] == {"cachePoint": {"type": "default", "ttl": "1h"}}
    # Messages 0 and 1 become one turn; the point still follows message 1.
    until = ask(
        Message.user("a"), Message.user("b"), Message.user("c"), Message.assistant("d"),
        cache=CacheConfig(prefix_until_index=1),
    )  # fmt: skip
    assert until["messages"][0]["content"] == [{"text": "a"}, {"text": "b"}, point, {"text": "c"}]


def test_tools_of_the_conversation_are_named_even_if_none_may_be_used():
    call = ToolCallPart(id="1", name="f", input={})
    result = ToolResultPart(id="1", content=(TextPart(" "),))
    made = ask(Message.user("a"), Message("assistant", parts=(call,)), Message("tool", parts=(result,)))
    assert [tool["toolSpec"]["name"] for tool in made["toolConfig"]["tools"]] == ["f"]
    assert made["messages"][-1]["content"][0]["toolResult"]["content"] == [{"text": "(no text)"}]


def test_built_in_tools_and_stored_caches_are_refused():
    with pytest.raises(UnsupportedFeatureError, match="no built-in tools"):
        ask(tools=(BuiltinTool(name="web_search"),))
    with pytest.raises(UnsupportedFeatureError, match="no stored caches"):
        ask(cache=CacheConfig(resource="r"))


def test_options_of_others_are_passed_on_and_openais_are_not():
    made = ask(extensions={"additionalModelRequestFields": {"a": 1}, "b": 2, "logit_bias": {"1": 1}, "metadata": {}})
    assert made["additionalModelRequestFields"] == {"a": 1, "b": 2}
