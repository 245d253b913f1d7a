"""Converse as DSPy's users meet it: adapters, tools, types, streams, and the bounds on every provider."""

import asyncio
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Iterator

import dspy
import pytest
from dspy.lm15 import CacheConfig
from dspy.utils.exceptions import LMError, LMProviderError, LMTimeoutError, LMUnsupportedFeatureError

from dspy_lambda.deadline import DEADLINE
from dspy_lambda.errors import DeadlineExceeded
from dspy_lambda.provider_bounds import ProviderBounds, bound_provider_calls, set_bounds
from tests.handler.models.bedrock.bedrock_server import MARKED, Reply, chat, converse, event, streamed, text_events
from tests.handler.models.bedrock.converse.oracle import check

NOVA = "bedrock/us.amazon.nova-lite-v1:0"
CLAUDE = "bedrock/us.anthropic.claude-sonnet-4-5-20250929-v1:0"
PNG = "data:image/png;base64,iVBORw0KGgo="


def lm(bedrock, model=NOVA, **options):
    return dspy.LM(model, **({"api_base": bedrock.url, "cache": False, "num_retries": 0} | options))


def bodies(bedrock):
    """Return what was sent, once botocore has accepted it."""
    for sent in bedrock.sent:
        check(sent.json)
    return [sent.json for sent in bedrock.sent]


@pytest.mark.parametrize("adapter", [dspy.ChatAdapter, dspy.JSONAdapter, dspy.XMLAdapter])
def test_adapters_get_their_answers(bedrock, adapter):
    adapter = adapter()
    answers = {"ChatAdapter": MARKED, "JSONAdapter": '{"answer": "Paris"}', "XMLAdapter": "<answer>Paris</answer>"}
    bedrock.answer = lambda _: converse(answers[type(adapter).__name__])
    with dspy.context(lm=lm(bedrock), adapter=adapter):
        predict = dspy.Predict("question -> answer")
        assert predict(question="q").answer == "Paris"
        assert asyncio.run(predict.acall(question="q")).answer == "Paris"
    assert len(bodies(bedrock)) == 2


def test_usage_and_cost_are_counted(bedrock):
    bedrock.replies = [converse(cacheReadInputTokens=7, cacheWriteInputTokens=2)]
    with dspy.context(track_usage=True, lm=lm(bedrock)):
        usage = dspy.Predict("question -> answer")(question="q").get_lm_usage()
    assert len(usage) == 1
    (counts,) = usage.values()
    assert (counts["prompt_tokens"], counts["completion_tokens"]) == (19, 5)


def test_a_schema_is_sent_only_where_the_model_takes_one(bedrock):
    bedrock.answer = lambda _: converse('{"answer": "Paris"}')
    for model in (NOVA, CLAUDE):
        with dspy.context(lm=lm(bedrock, model), adapter=dspy.JSONAdapter()):
            assert dspy.Predict("question -> answer")(question="q").answer == "Paris"
    nova, claude = bodies(bedrock)
    assert "outputConfig" not in nova
    schema = json.loads(claude["outputConfig"]["textFormat"]["structure"]["jsonSchema"]["schema"])
    assert schema["additionalProperties"] is False


GUARDRAIL = {"guardrailIdentifier": "abc", "guardrailVersion": "1"}
OSS = "bedrock/openai.gpt-oss-120b-1:0"


@pytest.mark.parametrize(
    "call",
    [
        lambda made: made()("q", guardrailConfig=GUARDRAIL),
        lambda made: made().copy(guardrailConfig=GUARDRAIL)("q"),
        lambda made: asyncio.run(made().acall("q", guardrailConfig=GUARDRAIL)),
        lambda made: made(guardrailConfig=GUARDRAIL).copy(model="bedrock-chat:openai.gpt-oss-120b-1:0")("q"),
    ],
    ids=["call", "copy", "async", "copy of another door"],
)
def test_a_guardrail_is_never_ignored(bedrock, call):
    bedrock.answer = lambda _: chat()
    with pytest.raises((ValueError, LMError), match="ignore guardrailConfig"):
        call(lambda **options: lm(bedrock, OSS, **options))
    assert not bedrock.sent


def weather(city: str) -> str:
    """Tell the weather."""
    return f"rain in {city}"


@pytest.mark.parametrize("on_loop", [False, True], ids=["sync", "async"])
def test_functions_are_called_natively(bedrock, on_loop):
    class Answer(dspy.Signature):
        question: str = dspy.InputField()
        tools: list[dspy.Tool] = dspy.InputField()
        calls: dspy.ToolCalls = dspy.OutputField()

    use = {"toolUseId": "t1", "name": "weather", "input": {"city": "Rome"}}
    bedrock.answer = lambda _: converse([{"text": "Let me see."}, {"toolUse": use}], "tool_use")
    adapter = dspy.ChatAdapter(use_native_function_calling=True)
    with dspy.context(lm=lm(bedrock), adapter=adapter):
        inputs = {"question": "q", "tools": [dspy.Tool(weather)]}
        predict = dspy.Predict(Answer)
        found = asyncio.run(predict.acall(**inputs)) if on_loop else predict(**inputs)
    (call,) = found.calls.tool_calls
    assert (call.name, call.args) == ("weather", {"city": "Rome"})
    (body,) = bodies(bedrock)
    (tool,) = body["toolConfig"]["tools"]
    assert tool["toolSpec"]["name"] == "weather"
    assert tool["toolSpec"]["inputSchema"]["json"]["properties"]["city"] == {"type": "string"}


def test_react_uses_its_tools(bedrock):
    def step(thought, name, arguments):
        return f"[[ ## next_thought ## ]]\n{thought}\n\n[[ ## next_tool_name ## ]]\n{name}\n\n" \
            f"[[ ## next_tool_args ## ]]\n{arguments}\n\n[[ ## completed ## ]]"  # fmt: skip

    last = "[[ ## reasoning ## ]]\nr\n\n" + MARKED
    texts = [step("look", "weather", '{"city": "Rome"}'), step("done", "finish", "{}"), last]
    bedrock.replies = [converse(text) for text in texts]
    with dspy.context(lm=lm(bedrock)):
        assert dspy.ReAct("question -> answer", tools=[weather])(question="q").answer == "Paris"
    assert "rain in Rome" in str(bodies(bedrock)[-1])


def test_images_and_history_are_sent(bedrock):
    class Describe(dspy.Signature):
        image: dspy.Image = dspy.InputField()
        history: dspy.History = dspy.InputField()
        question: str = dspy.InputField()
        answer: str = dspy.OutputField()

    history = dspy.History(messages=[{"question": "before", "answer": "then"}])
    with dspy.context(lm=lm(bedrock)):
        dspy.Predict(Describe)(image=dspy.Image(PNG), history=history, question="now")
    (body,) = bodies(bedrock)
    blocks = [block for message in body["messages"] for block in message["content"]]
    assert {"image": {"format": "png", "source": {"bytes": "iVBORw0KGgo="}}} in blocks
    assert [message["role"] for message in body["messages"]] == ["user", "assistant", "user"]


def test_an_image_at_an_address_is_refused_before_any_request(bedrock):
    class Describe(dspy.Signature):
        image: dspy.Image = dspy.InputField()
        answer: str = dspy.OutputField()

    with (
        dspy.context(lm=lm(bedrock)),
        pytest.raises(LMUnsupportedFeatureError, match="download it in the program"),
    ):
        dspy.Predict(Describe)(image=dspy.Image("https://example.com/a.png"))
    assert bedrock.sent == []


def test_reasoning_is_asked_for_and_returned(bedrock):
    class Think(dspy.Signature):
        question: str = dspy.InputField()
        reasoning: dspy.Reasoning = dspy.OutputField()
        answer: str = dspy.OutputField()

    thought = {"reasoningContent": {"reasoningText": {"text": "because", "signature": "s"}}}
    bedrock.answer = lambda _: converse([thought, {"text": MARKED}])
    with dspy.context(lm=lm(bedrock, CLAUDE, reasoning_effort="low", max_tokens=2000)):
        found = dspy.Predict(Think)(question="q")
    assert (str(found.reasoning), found.answer) == ("because", "Paris")
    (body,) = bodies(bedrock)
    thinking = body["additionalModelRequestFields"]["thinking"]
    assert thinking["type"] == "enabled"
    assert body["inferenceConfig"]["maxTokens"] == 2000 + thinking["budget_tokens"]


def test_a_prompt_cache_puts_cache_points(bedrock):
    with dspy.context(lm=lm(bedrock, prompt_cache=CacheConfig(prefix="stable"))):
        dspy.Predict("question -> answer")(question="q")
    (body,) = bodies(bedrock)
    assert body["system"][-1] == {"cachePoint": {"type": "default"}}


@pytest.mark.parametrize(
    "model", ["us.anthropic.claude-opus-4-7", "jp.anthropic.claude-opus-4-8", "converse/anthropic.claude-opus-5"]
)
def test_a_model_that_refuses_a_temperature_gets_none(bedrock, model):
    bedrock.answer = lambda _: converse(MARKED)
    with dspy.context(lm=lm(bedrock, f"bedrock/{model}", temperature=0.3, max_tokens=9)):
        best = dspy.BestOfN(dspy.Predict("question -> answer"), N=2, reward_fn=lambda *_: 0.0, threshold=1.0)
        best(question="q")  # with a temperature of 1
    assert [body["inferenceConfig"] for body in bodies(bedrock)] == [{"maxTokens": 9}] * 2


@pytest.mark.parametrize(
    ("model", "is_forced"),
    [
        ("us.meta.llama3-3-70b-instruct-v1:0", False),
        ("us.anthropic.claude-opus-5-5", False),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", True),
    ],
)
def test_a_tool_is_forced_only_where_the_model_takes_it(bedrock, model, is_forced):
    def search(query: str) -> str:
        return "found"

    # As dspy.ReActV2 ends: it forces the tool `submit`.
    choice = {"type": "function", "function": {"name": "search"}}
    tools = [dspy.Tool(search).format_as_litellm_function_call()]
    lm(bedrock, f"bedrock/{model}")("q", tools=tools, tool_choice=choice)
    (body,) = bodies(bedrock)
    assert body["toolConfig"].get("toolChoice") == ({"tool": {"name": "search"}} if is_forced else None)


def test_a_guardrail_and_other_options_of_converse_are_sent(bedrock):
    guardrail = {"guardrailIdentifier": "abc", "guardrailVersion": "1"}
    model = lm(
        bedrock, guardrailConfig=guardrail, performanceConfig={"latency": "optimized"}, requestMetadata={"a": "b"}
    )
    model("q", temperature=0.5, max_tokens=9, stop=["x"], top_p=0.9)
    asyncio.run(model.acall("q"))
    first, second = bodies(bedrock)
    assert first["inferenceConfig"] == {"temperature": 0.5, "maxTokens": 9, "stopSequences": ["x"], "topP": 0.9}
    for body in (first, second):
        assert body["guardrailConfig"] == guardrail
        assert body["performanceConfig"] == {"latency": "optimized"}
        assert body["requestMetadata"] == {"a": "b"}


def test_a_guardrail_moves_a_model_of_another_door_to_converse(bedrock):
    guardrail = {"guardrailIdentifier": "abc", "guardrailVersion": "1"}
    lm(bedrock, "bedrock/openai.gpt-oss-120b-1:0", guardrailConfig=guardrail)("q")
    assert bedrock.sent[0].url.endswith("/model/openai.gpt-oss-120b-1%3A0/converse")


@pytest.mark.parametrize("model", ["bedrock/openai.gpt-oss-20b-1:0", "bedrock-mantle-chat:openai.gpt-oss-20b"])
@pytest.mark.parametrize("is_copied", [False, True])
def test_a_guardrail_of_one_call_is_refused_where_it_would_be_ignored(bedrock, model, is_copied):
    guardrail = {"guardrailConfig": {"guardrailIdentifier": "abc", "guardrailVersion": "1"}}
    own = lm(bedrock, model).copy(**guardrail) if is_copied else lm(bedrock, model)
    with pytest.raises(LMUnsupportedFeatureError, match="would ignore guardrailConfig"):
        own("q", **({} if is_copied else guardrail))
    assert not bedrock.sent


def test_several_answers_are_several_requests(bedrock):
    assert len(lm(bedrock)("q", n=3)) == len(bodies(bedrock)) == 3


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_an_answer_is_streamed_to_a_listener(bedrock, is_async):
    pieces = ["[[ ## answer ## ]]\n", "Pa", "ris is", " the answer", "\n\n[[ ## comp", "leted ## ]]"]
    bedrock.answer = lambda _: streamed(text_events(*pieces))
    predict = dspy.Predict("question -> answer")
    listener = dspy.streaming.StreamListener(signature_field_name="answer")
    program = dspy.streamify(predict, stream_listeners=[listener], async_streaming=is_async, is_async_program=is_async)

    async def on_loop():
        return [item async for item in program(question="q")]

    with dspy.context(lm=lm(bedrock)):
        items = asyncio.run(on_loop()) if is_async else list(program(question="q"))
    assert "".join(item.chunk for item in items[:-1]) == "Paris is the answer"
    assert items[-1].answer == "Paris is the answer"
    assert bedrock.sent[0].url.endswith("/converse-stream")


@pytest.mark.parametrize("model", [NOVA, "bedrock-chat:m", "bedrock-mantle-chat:m", "bedrock-anthropic:m"])
def test_connections_are_reused(bedrock, model):
    found = lm(bedrock, model)

    async def twice():
        return [await found.acall("q"), await found.acall("q")]

    assert len(asyncio.run(twice())) == 2
    assert len(bedrock.sent) == 2


class _Discarded:
    async def send(self, chunk):
        pass


def endless() -> Iterator[bytes]:
    yield event("messageStart", {"role": "assistant"})
    yield from itertools.repeat(event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "a" * 4000}}))


def dripping() -> Iterator[bytes]:
    for item in endless():
        yield item
        time.sleep(0.02)


def stream(model):
    async def on_loop():
        with dspy.context(send_stream=_Discarded()):
            return await model.acall("q")

    return asyncio.run(on_loop())


def stream_in_thread(model):
    """Stream with the sync client, as `streamify` does for programs that are not async."""
    program = dspy.streamify(dspy.Predict("question -> answer"), is_async_program=False)

    async def on_loop():
        return [item async for item in program(question="q")]

    with dspy.context(lm=model, adapter=dspy.ChatAdapter(use_json_adapter_fallback=False)):
        return asyncio.run(on_loop())


def reason_of(action, kind):
    with pytest.raises((kind, ExceptionGroup)) as caught:
        action()
    error = caught.value
    while isinstance(error, ExceptionGroup):
        (error,) = error.exceptions
    assert isinstance(error, kind), repr(error)


@pytest.fixture
def bounds():
    yield
    bound_provider_calls()
    DEADLINE.set(None)


@pytest.mark.parametrize("run", [stream, stream_in_thread])
def test_an_endless_stream_ends_at_the_size_limit(bedrock, bounds, run):
    set_bounds(ProviderBounds(answer_bytes=100_000))
    bedrock.answer = lambda _: streamed(endless())
    reason_of(lambda: run(lm(bedrock)), LMProviderError)


@pytest.mark.parametrize("run", [stream, stream_in_thread])
def test_a_slow_stream_ends_at_the_timeout(bedrock, bounds, run):
    bedrock.answer = lambda _: streamed(dripping())
    reason_of(lambda: run(lm(bedrock, timeout=0.1)), LMTimeoutError)


@pytest.mark.parametrize("run", [stream, stream_in_thread])
def test_a_slow_stream_ends_with_its_call(bedrock, bounds, run):
    set_bounds(ProviderBounds(late_seconds=0.05))
    bedrock.answer = lambda _: streamed(dripping())
    DEADLINE.set(time.monotonic() + 0.2)
    reason_of(lambda: run(lm(bedrock)), DeadlineExceeded)


def test_an_answer_too_large_is_an_error(bedrock, bounds):
    set_bounds(ProviderBounds(answer_bytes=1000))
    bedrock.answer = lambda _: Reply(b" " * 2000)
    reason_of(lambda: lm(bedrock)("q"), LMProviderError)


WITHOUT = """
import asyncio, sys
for name in ("litellm", "boto3", "botocore"):
    sys.modules[name] = None
from dspy_lambda.dspy_patches.table import patch_dspy
patch_dspy(print, core_share=1, fast=True, gateway=False)
import dspy
class Discarded:
    async def send(self, chunk): pass
for model in ("bedrock/amazon.nova-lite-v1:0", "bedrock/openai.gpt-oss-20b-1:0", "bedrock-chat:m",
              "bedrock-mantle-chat:m", "bedrock-anthropic:m"):
    lm = dspy.LM(model, api_base=sys.argv[1], cache=False)
    assert lm("q") and asyncio.run(lm.acall("q"))
    with dspy.context(send_stream=Discarded()):
        assert asyncio.run(lm.acall("q"))
print(sorted(name for name, module in sys.modules.items() if module and name.split(".")[0] in
             ("litellm", "boto3", "botocore")))
"""


def test_neither_litellm_nor_the_sdk_is_imported(bedrock):
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT, bedrock.url], capture_output=True, text=True, timeout=120, check=True
    )
    assert run.stdout.splitlines()[-1] == "[]"
    assert len(bedrock.sent) == 15
