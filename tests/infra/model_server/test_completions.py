"""Tools, schemas and reasoning in OpenAI's two forms; each other wire has tests of its own."""

import json

import pytest

from dspy_lambda_infra.model_server.completions import complete

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
ASK = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
TOOLS = [{"type": "function", "function": {"name": name, "parameters": SCHEMA}} for name in ("first", "last")]


def chosen(**more):
    message = complete({**ASK, "tools": TOOLS, **more})["choices"][0]["message"]
    return [call["function"]["name"] for call in message.get("tool_calls", [])]


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        (None, ["last"]),
        ("auto", ["last"]),
        ("required", ["last"]),
        ("none", []),
        ({"type": "function", "function": {"name": "first"}}, ["first"]),
    ],
)
def test_the_tool_that_is_chosen_is_called(choice, names):
    assert chosen(tool_choice=choice) == names


def test_no_tool_is_called_after_a_result_unless_a_call_is_required():
    messages = [*ASK["messages"], {"role": "tool", "content": "sunny", "tool_call_id": "1"}]
    assert chosen(messages=messages) == []
    assert chosen(messages=messages, tool_choice="required") == ["last"]


def test_all_words_of_an_answer_are_counted():
    document = complete({**ASK, "tools": TOOLS, "reasoning_effort": "low"})
    message = document["choices"][0]["message"]
    called = message["tool_calls"][0]["function"]["arguments"]
    tokens = len(called.split()) + len(message["reasoning_content"].split())
    assert document["usage"] == {"prompt_tokens": 1, "completion_tokens": tokens, "total_tokens": tokens + 1}


def test_a_schema_is_followed_where_the_prompt_names_no_fields():
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}
    made = complete({**ASK, "response_format": form})
    assert json.loads(made["choices"][0]["message"]["content"]) == {"city": "m: hi"}


@pytest.fixture
def openai(models):
    """OpenAI's own client, if it is installed."""
    return pytest.importorskip("openai").OpenAI(base_url=models.url, api_key="k", max_retries=0)


def test_openais_client_reads_calls_of_tools_in_answers_and_streams(openai):
    answer = openai.chat.completions.create(**ASK, tools=TOOLS)
    assert answer.choices[0].finish_reason == "tool_calls"
    assert json.loads(answer.choices[0].message.tool_calls[0].function.arguments) == {"city": "m: hi"}
    chunks = list(openai.chat.completions.create(**ASK, tools=TOOLS, stream=True))
    (call,) = [call for c in chunks if c.choices for call in c.choices[0].delta.tool_calls or []]
    assert (call.id, call.function.name) == ("call_embedded", "last")


def test_openais_client_reads_responses_and_their_streams(openai):
    tools = [{"type": "function", "name": "weather", "parameters": SCHEMA}]
    answer = openai.responses.create(model="m", input="hi", tools=tools, reasoning={"effort": "low"})
    assert [item.type for item in answer.output] == ["reasoning", "function_call"]
    assert json.loads(answer.output[1].arguments) == {"city": "m: hi"}
    chosen = {"type": "function", "name": "weather"}
    events = list(openai.responses.create(model="m", input="hi", tools=tools, tool_choice=chosen, stream=True))
    assert events[-1].response.output[0].name == "weather"
    (delta,) = [event.delta for event in events if event.type == "response.function_call_arguments.delta"]
    assert json.loads(delta) == {"city": "m: hi"}
    result = {"type": "function_call_output", "call_id": answer.output[1].call_id, "output": "sunny"}
    said = openai.responses.create(model="m", input=[{"role": "user", "content": "hi"}, result], tools=tools)
    assert said.output_text == "m: sunny"
    events = list(openai.responses.create(model="m", input="hi there", stream=True))
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == "m: hi there"
    assert events[-1].response.output_text == "m: hi there"


def test_openais_client_reads_a_schemas_answer_from_responses(openai):
    form = {"type": "json_schema", "name": "n", "schema": SCHEMA}
    answer = openai.responses.create(model="m", input="hi", text={"format": form})
    assert json.loads(answer.output_text) == {"city": "m: hi"}


def test_openais_client_reads_embeddings(openai):
    answer = openai.embeddings.create(model="e", input=["one", "two words"])
    assert [len(item.embedding) for item in answer.data] == [1536, 1536]
    assert answer.usage.prompt_tokens == 3
