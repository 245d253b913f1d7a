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


@pytest.mark.parametrize(
    ("model", "is_kept"),
    [
        ("us.anthropic.claude-3-7-sonnet-20250219-v1:0", True),
        ("us.anthropic.claude-opus-4-20250514-v1:0", True),
        ("us.anthropic.claude-opus-4-1-20250805-v1:0", False),
        ("global.anthropic.claude-sonnet-4-5-20250929-v1:0", False),
        ("anthropic.claude-sonnet-4-6", False),
        ("us.amazon.nova-pro-v1:0", True),
    ],
)
def test_claude_from_4_1_on_gets_a_temperature_or_top_p(model, is_kept):
    made = ask(model=model, temperature=0.5, top_p=0.9)["inferenceConfig"]
    assert made == {"temperature": 0.5, **({"topP": 0.9} if is_kept else {})}


def test_nova_at_high_effort_gets_nothing_about_inference():
    options = {"temperature": 0.5, "top_p": 0.9, "top_k": 5, "max_tokens": 100}
    model = "us.amazon.nova-2-lite-v1:0"
    made = ask(model=model, reasoning=Reasoning("high"), **options)
    assert "inferenceConfig" not in made
    assert list(made["additionalModelRequestFields"]) == ["reasoningConfig"]
    assert len(ask(model=model, reasoning=Reasoning("medium"), **options)["inferenceConfig"]) == 3


@pytest.mark.parametrize(
    "model", ["mistral.mistral-7b-instruct-v0:2", "mistral.mixtral-8x7b-instruct-v0:1", "amazon.titan-text-express-v1"]
)
def test_a_model_without_a_system_text_gets_it_in_the_first_message(model):
    made = ask(model=model, system="be brief")
    assert made == {"messages": [{"role": "user", "content": [{"text": "be brief"}, {"text": "q"}]}]}
    assert "system" in ask(model="mistral.mistral-large-2402-v1:0", system="be brief")


@pytest.mark.parametrize(("max_tokens", "sent"), [(32_000, 32_000), (16_000, 32_000), (100, 16_100)])
def test_a_callers_own_thinking_is_part_of_its_max_tokens_if_it_fits(max_tokens, sent):
    thinking = {"thinking": {"type": "enabled", "budget_tokens": 16_000}}
    made = ask(model="anthropic.claude-opus-4-20250514-v1:0", max_tokens=max_tokens, extensions=thinking)
    assert made["inferenceConfig"] == {"maxTokens": sent}
