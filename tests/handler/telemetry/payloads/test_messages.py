"""Messages of LM calls in the form of OpenTelemetry's GenAI conventions."""

import json

import pytest

from dspy_lambda.telemetry.payloads.messages import FreeText, messages_of

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 400}}


@pytest.mark.parametrize(("value", "expected"), [
    ([{"role": "system", "content": "be"}], [{"role": "system", "parts": [{"type": "text", "content": "be"}]}]),
    (["one", "two"], [{"role": "user", "parts": [{"type": "text", "content": t}]} for t in ("one", "two")]),
    ("one", [{"role": "user", "parts": [{"type": "text", "content": "one"}]}]),
    ([{"text": "one", "finish_reason": "stop"}],
     [{"role": "user", "parts": [{"type": "text", "content": "one"}], "finish_reason": "stop"}]),
    ([{"role": "user", "content": [{"type": "text", "text": "see"}, IMAGE]}],
     [{"role": "user", "parts": [{"type": "text", "content": "see"},
                                 {"type": "blob", "modality": "image", "mime_type": "image/png", "bytes": 300}]}]),
    ([{"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": '{"a": 1}'}}]}],
     [{"role": "assistant", "parts": [{"type": "tool_call", "name": "f", "arguments": '{"a": 1}', "id": "1"}]}]),
    ([{"role": "user", "parts": [{"type": "text", "content": "as it is"}]}],
     [{"role": "user", "parts": [{"type": "text", "content": "as it is"}]}]),
    ([None, 7], [{"role": "user", "parts": [{"type": "int"}]}]),
])  # fmt: skip
def test_roles_and_parts(value, expected):
    found = messages_of(value, "user")
    assert found == expected
    json.dumps(found)


def test_texts_are_free_texts():
    (message,) = messages_of([{"role": "user", "content": "x"}], "user")
    assert type(message["parts"][0]["content"]) is FreeText
