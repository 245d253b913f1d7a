"""Masked fields in free text, in each notation that adapters, JSON, `repr`, headers and URLs have."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspy_lambda.telemetry.payloads.masking import is_secret_name
from dspy_lambda.telemetry.payloads.sections import mask_sections

BODY = {"password": 'a "b" }', "q": "w"}


def masked(text):
    return mask_sections(text, is_secret_name, "***")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[[ ## password ## ]]\nx\ny\n\n[[ ## answer ## ]]\nok", "[[ ## password ## ]]***[[ ## answer ## ]]\nok"),
        ("[[ ## db-Password ## ]]\nto the end", "[[ ## db-Password ## ]]***"),
        ("<token>a\nb</token> <answer>x</answer>", "<token>***</token> <answer>x</answer>"),
        ("<token>a\nb", "<token>***"),
        (json.dumps(BODY), '{"password": ***, "q": "w"}'),
        (repr(BODY), "{'password': ***, 'q': 'w'}"),
        (json.dumps(json.dumps(BODY)), '"{\\"password\\": ***, \\"q\\": \\"w\\"}"'),
        ('{"token": {"a": [1, "}"]}, "q": 1}', '{"token": ***, "q": 1}'),
        ('{"token": 12, "q": 1}', '{"token": ***, "q": 1}'),
        ('{"token": "cut off', '{"token": ***'),
        ("Inputs(password='x y', q='z')", "Inputs(password=***, q='z')"),
        ("user.password = b'abc' and more", "user.password = *** and more"),
        ("https://h/x?api_key=abc&b=1", "https://h/x?api_key=***&b=1"),
        ("Authorization: Bearer abc\nHost: x", "Authorization: ***\nHost: x"),
        ("Set-Cookie: a=b; c=d\nHost: x", "Set-Cookie: ***\nHost: x"),
        ("authorization=Basic abc= next", "authorization=*** next"),
    ],
)
def test_the_value_is_replaced_up_to_its_end(text, expected):
    assert masked(text) == expected


@pytest.mark.parametrize("text", [
    "1. `password` (str): ", "max_tokens: 100", "the answer: 42", "<answer>42</answer>", "a = b",
    "[[ ## answer ## ]]\n42",
])  # fmt: skip
def test_other_text_is_kept(text):
    assert masked(text) == text


@given(st.text(alphabet="[]#<>{}\"'\\:= \npasword_token", max_size=200))
def test_any_text_has_an_end(text):
    assert masked(text).count("***") <= len(text)


@given(
    st.text(min_size=6).filter(lambda text: text.strip() and not text.isalnum()), st.text(alphabet="ab {}", max_size=9)
)
def test_a_value_in_json_never_appears(secret, other):
    secret = f"S3{secret}S3"
    text = json.dumps({"a": other, "password": secret, "list": [{"api-key": [secret, {"b": secret}]}]})
    assert json.dumps(secret)[1:-1] not in masked(text)
