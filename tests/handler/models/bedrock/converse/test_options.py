"""Options in each vendor's own form."""

import pytest
from dspy._vendor.lm15.adaptation import collecting
from dspy.lm15 import Config, Reasoning

from dspy_lambda.models.bedrock.converse.options import is_thinking, thinking_budget, vendor_fields
from tests.handler.models.bedrock.converse.test_request import ask


def fields(model, **options):
    """Return the fields, and the options that the record names as changed."""
    with collecting("note", provider="bedrock") as scope:
        found = vendor_fields(model, Config(**options))
    return found, [record.field for record in scope.records]


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        ("us.anthropic.claude-opus-4-7", {"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}}),
        ("us.amazon.nova-2-lite-v1:0", {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "high"}}),
        ("openai.gpt-oss-120b-1:0", {"reasoning_effort": "high"}),
        ("meta.llama3-70b-instruct-v1:0", None),
    ],
)
def test_each_vendor_is_told_how_long_to_think_in_its_own_form(model, fields):
    assert ask(model=model, reasoning=Reasoning("high")).get("additionalModelRequestFields") == fields


@pytest.mark.parametrize(
    ("model", "found", "changed"),
    [
        ("eu.anthropic.claude-3-haiku", {"top_k": 5}, []),
        ("us.amazon.nova-pro-v1:0", {"inferenceConfig": {"topK": 5}}, []),
        ("meta.llama3-70b-instruct-v1:0", {}, ["config.top_k"]),
    ],
)
def test_top_k_goes_where_the_vendor_takes_it(model, found, changed):
    assert fields(model, top_k=5) == (found, changed)


def test_options_without_a_field_are_recorded_as_dropped():
    assert fields("m", seed=1, user_id="u", logprobs=1) == ({}, ["config.seed", "config.user_id", "config.logprobs"])


def test_an_unknown_effort_becomes_the_nearest():
    found, changed = fields("us.amazon.nova-2-lite-v1:0", reasoning=Reasoning("max"))
    assert found["reasoningConfig"]["maxReasoningEffort"] == "high"
    assert changed == ["config.reasoning.effort"]


def test_reasoning_that_is_off_is_not_sent():
    assert fields("anthropic.claude-3-7-sonnet", reasoning=Reasoning("off")) == ({}, [])


@pytest.mark.parametrize(
    ("found", "is_on", "budget"),
    [
        ({}, False, 0),
        ({"thinking": "on"}, False, 0),
        ({"thinking": {"type": "disabled"}}, False, 0),
        ({"thinking": {"type": "adaptive"}}, True, 0),
        ({"thinking": {"type": "enabled", "budget_tokens": 2048}}, True, 2048),
        ({"thinking": {"type": "enabled", "budget_tokens": "2048"}}, True, 0),
    ],
)
def test_what_thinking_needs_is_read_from_any_caller(found, is_on, budget):
    assert (is_thinking(found), thinking_budget(found)) == (is_on, budget)
