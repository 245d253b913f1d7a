import json

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
ASK = {"model": "claude", "max_tokens": 100, "messages": [{"role": "user", "content": "hi"}]}


def answer(send, **more):
    return json.loads(send("/v1/messages", {**ASK, **more})[2])


def test_a_tool_is_called_in_answers_and_streams(send):
    tools = [{"name": "weather", "input_schema": SCHEMA}]
    made = answer(send, tools=tools)
    assert made["content"] == [
        {"type": "tool_use", "id": "call_embedded", "name": "weather", "input": {"city": "claude: hi"}}
    ]
    assert made["stop_reason"] == "tool_use"
    _, _, body = send("/v1/messages", {**ASK, "tools": tools, "stream": True})
    events = [json.loads(line.removeprefix("data: ")) for line in body.decode().splitlines() if line[:5] == "data:"]
    (delta,) = [event["delta"] for event in events if event["type"] == "content_block_delta"]
    assert json.loads(delta["partial_json"]) == {"city": "claude: hi"}


def test_no_tool_is_called_after_its_result_or_if_none_is_wanted(send):
    tools = [{"name": "weather", "input_schema": SCHEMA}]
    result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": "sunny"}]}
    made = answer(send, tools=tools, messages=[*ASK["messages"], result])
    assert made["content"] == [{"type": "text", "text": "claude: sunny"}]
    assert answer(send, tools=tools, tool_choice={"type": "none"})["stop_reason"] == "end_turn"


def test_thinking_comes_first_if_it_is_enabled(send):
    thinking, text = answer(send, thinking={"type": "enabled", "budget_tokens": 1024})["content"]
    assert (thinking["type"], thinking["signature"], text["text"]) == ("thinking", "embedded", "claude: hi")
    _, _, body = send("/v1/messages", {**ASK, "thinking": {"type": "adaptive"}, "stream": True})
    events = [json.loads(line.removeprefix("data: ")) for line in body.decode().splitlines() if line[:5] == "data:"]
    deltas = [event["delta"] for event in events if event["type"] == "content_block_delta"]
    assert "".join(delta.get("thinking", "") for delta in deltas) == thinking["thinking"]
    assert "".join(delta.get("signature", "") for delta in deltas) == "embedded"
    assert "".join(delta.get("text", "") for delta in deltas) == "claude: hi"


def test_a_schema_is_followed(send):
    form = {"type": "json_schema", "schema": SCHEMA}
    (block,) = answer(send, output_config={"format": form})["content"]
    assert json.loads(block["text"]) == {"city": "claude: hi"}


def test_a_cache_breakpoint_is_written_once_and_then_read(send, models):
    system = [{"type": "text", "text": "long rules here", "cache_control": {"type": "ephemeral"}}]
    first, second = (answer(send, system=system)["usage"] for _ in range(2))
    assert first == {
        "input_tokens": 1,
        "output_tokens": 2,
        "cache_read_input_tokens": 0,
        "cache_creation_input_tokens": 3,
    }
    assert (second["input_tokens"], second["cache_read_input_tokens"]) == (1, 3)
    assert models.stats()["prompt_tokens"] == 8
