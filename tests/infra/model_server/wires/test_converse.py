import pytest

from tests.infra.model_server.conftest import MODEL, ask

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "count": {"type": "integer"}},
    "required": ["city", "count"],
}
TOOLS = [{"toolSpec": {"name": name, "inputSchema": {"json": SCHEMA}}} for name in ("first", "last")]


def collect(stream):
    """Put an event stream together: its blocks, its stop reason, its metadata."""
    blocks, stop, metadata = {}, None, None
    for event in stream:
        if start := event.get("contentBlockStart"):
            blocks[start["contentBlockIndex"]] = {**start["start"]["toolUse"], "input": ""}
        if delta := event.get("contentBlockDelta"):
            add(blocks.setdefault(delta["contentBlockIndex"], {}), delta["delta"])
        stop = event.get("messageStop", {}).get("stopReason", stop)
        metadata = event.get("metadata", metadata)
    return [blocks[index] for index in sorted(blocks)], stop, metadata


def add(block, delta):
    for key, text in (delta.get("toolUse") or delta.get("reasoningContent") or delta).items():
        block[key] = block.get(key, "") + text


def test_an_answer_has_text_usage_and_a_stop_reason(models, bedrock):
    answer = bedrock().converse(**ask("one two three"))
    assert answer["output"]["message"] == {"role": "assistant", "content": [{"text": f"{MODEL}: one two three"}]}
    assert answer["stopReason"] == "end_turn"
    assert answer["usage"] == {
        "inputTokens": 3,
        "outputTokens": 4,
        "totalTokens": 7,
        "cacheReadInputTokens": 0,
        "cacheWriteInputTokens": 0,
    }
    assert models.stats()["models"][MODEL] == {
        "requests": 1,
        "answered": 1,
        "prompt_tokens": 3,
        "completion_tokens": 4,
        "cache_read_tokens": 0,
        "cache_write_tokens": 0,
    }


@pytest.mark.parametrize(
    "model",
    [
        "eu.anthropic.claude-sonnet-4-20250514-v1:0",
        "arn:aws:bedrock:eu-west-1:123456789012:application-inference-profile/abc123",
        "arn:aws:bedrock:eu-west-1:123456789012:provisioned-model/abc123",
    ],
)
def test_ids_with_colons_and_slashes_are_read_from_the_path(models, bedrock, model):
    request = {**ask(), "modelId": model}
    answer = bedrock().converse(**request)
    assert answer["output"]["message"]["content"] == [{"text": f"{model}: hi"}]
    blocks, *_ = collect(bedrock().converse_stream(**request)["stream"])
    assert blocks == [{"text": f"{model}: hi"}]
    assert models.stats()["per_model"] == {model: 2}


def test_a_stream_has_the_same_text_and_usage_as_an_answer(bedrock):
    answer = bedrock().converse(**ask("one two three"))
    blocks, stop, metadata = collect(bedrock().converse_stream(**ask("one two three"))["stream"])
    assert blocks == answer["output"]["message"]["content"]
    assert (stop, metadata["usage"]) == (answer["stopReason"], answer["usage"])


@pytest.mark.parametrize(
    ("choice", "name"),
    [({"auto": {}}, "last"), ({"any": {}}, "last"), ({"tool": {"name": "first"}}, "first")],
)
def test_a_tool_is_called_with_arguments_that_match_its_schema(bedrock, choice, name):
    request = ask(toolConfig={"tools": TOOLS, "toolChoice": choice})
    answer = bedrock().converse(**request)
    used = {"toolUseId": "call_embedded", "name": name, "input": {"city": f"{MODEL}: hi", "count": 3}}
    assert answer["output"]["message"]["content"] == [{"toolUse": used}]
    assert answer["stopReason"] == "tool_use"
    (block,), stop, _ = collect(bedrock().converse_stream(**request)["stream"])
    assert (block["name"], stop) == (name, "tool_use")
    assert block["input"] == f'{{"city": "{MODEL}: hi", "count": 3}}'


def test_a_tools_result_is_answered_with_text(bedrock):
    request = ask(toolConfig={"tools": TOOLS})
    used = {"toolUse": {"toolUseId": "1", "name": "last", "input": {}}}
    result = {"toolResult": {"toolUseId": "1", "content": [{"text": "sunny"}]}}
    request["messages"] += [{"role": "assistant", "content": [used]}, {"role": "user", "content": [result]}]
    answer = bedrock().converse(**request)
    assert answer["output"]["message"]["content"] == [{"text": f"{MODEL}: sunny"}]


def test_reasoning_comes_with_a_signature_if_it_is_requested(bedrock):
    request = ask(additionalModelRequestFields={"thinking": {"type": "enabled", "budget_tokens": 1024}})
    reasoning, text = bedrock().converse(**request)["output"]["message"]["content"]
    assert text == {"text": f"{MODEL}: hi"}
    assert reasoning["reasoningContent"]["reasoningText"]["signature"] == "embedded"
    (thought, said), *_ = collect(bedrock().converse_stream(**request)["stream"])
    assert thought["signature"] == "embedded"
    assert thought["text"] == reasoning["reasoningContent"]["reasoningText"]["text"]
    assert said == text


def test_a_cache_point_is_written_once_and_then_read(models, bedrock):
    request = ask("a question", system=[{"text": "long rules here"}, {"cachePoint": {"type": "default"}}])
    first, second = (bedrock().converse(**request)["usage"] for _ in range(2))
    assert (first["inputTokens"], first["cacheWriteInputTokens"], first["cacheReadInputTokens"]) == (2, 3, 0)
    assert (second["inputTokens"], second["cacheWriteInputTokens"], second["cacheReadInputTokens"]) == (2, 0, 3)
    assert first["totalTokens"] == second["totalTokens"]
    sums = models.stats()["models"][MODEL]
    assert (sums["prompt_tokens"], sums["cache_read_tokens"], sums["cache_write_tokens"]) == (10, 3, 3)


def test_a_schema_is_followed(bedrock):
    schema = '{"type": "object", "properties": {"year": {"type": "integer"}}, "required": ["year"]}'
    form = {"type": "json_schema", "structure": {"jsonSchema": {"name": "n", "schema": schema}}}
    answer = bedrock().converse(**ask(outputConfig={"textFormat": form}))
    assert answer["output"]["message"]["content"] == [{"text": '{"year": 2026}'}]


def test_a_request_in_another_form_gets_a_validation_error(send, sign):
    path = f"/model/{MODEL}/converse"
    status, headers, _ = send(path, {"messages": "hi"}, **sign(path, {"messages": "hi"}, "bedrock"))
    assert (status, headers["x-amzn-ErrorType"].partition(":")[0]) == (400, "ValidationException")
