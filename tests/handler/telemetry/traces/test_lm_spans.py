"""Names and attributes of LM spans."""

from __future__ import annotations

from types import SimpleNamespace

import dspy
import pytest

from dspy_lambda.telemetry.traces.lm_spans import end_lm, start_embedding, start_lm
from dspy_lambda.telemetry.traces.spans import CLIENT, INTERNAL, Trace
from dspy_lambda.usage import Answer


@pytest.fixture
def parent():
    return Trace().start("step", INTERNAL, None, {})


@pytest.mark.parametrize(
    ("model", "provider", "name"),
    [
        ("openai/gpt-4.1-nano", "openai", "gpt-4.1-nano"),
        ("bedrock/amazon.nova-lite-v1:0", "aws.bedrock", "amazon.nova-lite-v1:0"),
        ("bedrock-chat:openai.gpt-oss-20b-1:0", "aws.bedrock", "openai.gpt-oss-20b-1:0"),
        ("gemini/gemini-2.5-flash", "gcp.gemini", "gemini-2.5-flash"),
        ("own", None, "own"),
    ],
)
def test_provider_and_model_are_named_as_the_conventions_do(parent, model, provider, name):
    span = start_lm(parent, SimpleNamespace(model=model, kwargs={}), (), {})
    assert span.attributes.get("gen_ai.provider.name") == provider
    assert (span.name, span.kind) == (f"chat {name}", CLIENT)


def test_the_calls_own_options_come_before_the_lms(parent):
    lm = dspy.LM("openai/m", temperature=0.5, max_tokens=10)
    attributes = start_lm(parent, lm, (), {"temperature": 1}).attributes
    assert attributes["gen_ai.request.temperature"] == 1
    assert attributes["gen_ai.request.max_tokens"] == 10


def test_answers_are_added_up_and_an_unknown_cost_is_left_out(parent):
    known, unknown = (start_lm(parent, SimpleNamespace(model="m"), (), {}) for _ in range(2))
    for span, cost in ((known, 0.25), (unknown, None)):
        span.note(Answer(1, 2, 0.5))
        span.note(Answer(10, 20, cost))
        end_lm(span, None)
    assert known.attributes["gen_ai.usage.input_tokens"] == 11
    assert known.attributes["gen_ai.usage.output_tokens"] == 22
    assert known.attributes["dspy_lambda.cost_usd"] == 0.75
    assert "dspy_lambda.cost_usd" not in unknown.attributes


def test_candidates_are_attempts_but_no_retries(parent):
    span = start_lm(parent, SimpleNamespace(model="m"), (), {})
    span.attempts = [(1, 2, None), (3, 4, None)]
    end_lm(span, None)
    assert (span.attributes["dspy_lambda.attempts"], span.attributes["dspy_lambda.retries"]) == (2, 0)
    assert [one.name for one in parent.trace.spans[2:]] == ["attempt 1", "attempt 2"]


def test_an_embedder_that_is_a_function_has_no_span(parent):
    assert start_embedding(parent, dspy.Embedder(lambda texts: [[0.0]] * len(texts)), (), {}) is None
    span = start_embedding(parent, dspy.Embedder("openai/text-embedding-3-small"), (), {})
    assert span.name == "embeddings text-embedding-3-small"
