import pytest

from dspy_lambda_infra.traces.details import details, payloads, words
from dspy_lambda_infra.traces.spans import span
from tests.infra.traces.otlp import span as otlp


def said(error=None, end=5, **attributes):
    return list(details(span(otlp(1, 0, "a", 0, end, error, **attributes), None)))


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({}, []),
        ({"error": "deadline"}, ["failed: out of time"]),
        ({"error": "ValueError"}, ["failed: ValueError"]),
        ({"error": "unfinished"}, ["unfinished: still running when its invocation ended"]),
        ({"end": None}, ["unfinished: it has no end"]),
        ({"dspy_lambda__outcome": "success"}, []),
        ({"dspy_lambda__outcome": "deadline", "error": "deadline"}, ["failed: out of time"]),
        (
            {"gen_ai__usage__input_tokens": 1200, "gen_ai__usage__output_tokens": 3, "dspy_lambda__cost_usd": 0.5},
            ["1,200+3 tokens", "0.500000 USD"],
        ),
        ({"dspy_lambda__input_tokens": 1, "dspy_lambda__output_tokens": 0}, ["1+0 tokens", "cost unknown"]),
        ({"dspy_lambda__alias": "small"}, ["model small"]),
        ({"dspy_lambda__attempts": 1}, []),
        ({"dspy_lambda__attempts": 3}, ["3 attempts"]),
        ({"dspy_lambda__retry_reason": "rate_limited"}, ["after rate limited"]),
        (
            {"dspy_lambda__fallback_from": "big", "dspy_lambda__fallback_reason": "timeout"},
            ["instead of big: timed out"],
        ),
        ({"dspy_lambda__cache_hit": True}, ["from the cache"]),
        ({"faas__coldstart": True}, ["cold start"]),
        ({"dspy_lambda__time_to_first_token_ms": 1234.5}, ["first token after 1,234 ms"]),
        ({"dspy_lambda__attempts": 10**400, "dspy_lambda__cache_hits": float("nan")}, []),
        ({"dspy_lambda__attempts": "many", "dspy_lambda__cache_hits": "x"}, []),
    ],
)
def test_attributes_are_said_in_words(attributes, expected):
    assert said(**attributes) == expected


def test_texts_of_attributes_cannot_control_the_terminal():
    found = said("\x1b[2J", dspy_lambda__alias="\x1b]0;x\x07", dspy_lambda__fallback_from="\r" * 1000)
    assert all(map(str.isprintable, found))
    assert words("new_reason") == "new reason"


def test_payloads_are_shown_in_the_order_of_the_call_and_otherwise_their_sizes():
    one = span(otlp(1, 0, "a", 0, 1, dspy_lambda__outputs="b", dspy_lambda__inputs__bytes=1200), None)
    assert list(payloads(one)) == [("dspy_lambda.inputs", ["1,200 bytes"]), ("dspy_lambda.outputs", ["b"])]
