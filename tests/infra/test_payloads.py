import json

import pytest

from dspy_lambda_infra.payloads import payload_lines


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("just text", ["just text"]),
        ("two\nlines\x1b[2J\r", ["two", "lines\\x1b[2J\\r"]),
        (json.dumps([{"role": "user", "parts": [{"type": "text", "content": "hi\nthere"}]}]), ["user: hi", "  there"]),
        (json.dumps([{"role": "user", "content": "hi"}]), ["user: hi"]),
        (json.dumps([{"role": "tool", "parts": [{"type": "tool_call", "name": "s"}]}]),
         ['tool: {"type": "tool_call", "name": "s"}']),
        (json.dumps({"question": "why", "n": 3}), ["question: why", "n: 3"]),
        ("[1, 2]", ["[1, 2]"]),
        ({"question": "why"}, ["question: why"]),
        (None, ["null"]),
        ('[{"role": "cut', ['[{"role": "cut']),
        ("[" * 100_000, ["[" * 100_000]),
    ],
)  # fmt: skip
def test_payloads_are_shown_readably(value, expected):
    assert payload_lines(value) == expected
