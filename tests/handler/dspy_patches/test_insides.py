"""Readings of DSPy's internals, on the installed DSPy."""

import sys

import dspy
import pytest
from dspy.clients import execution

from dspy_lambda.dspy_patches import insides


@pytest.mark.parametrize(
    ("model", "is_known"),
    [
        ("openai/gpt-4.1-nano", True),
        ("anthropic/claude-sonnet-4-5", True),
        ("bedrock/us.amazon.nova-lite-v1:0", True),  # through LiteLLM
        ("openai/our-own", False),
        ("mistral/our-own", False),
    ],
)
def test_a_models_price_is_known_if_the_price_map_has_it(model, is_known):
    assert insides.has_price(dspy.LM(model)) == is_known


@pytest.fixture
def changed(monkeypatch):
    """A DSPy that lacks the names of all readings."""
    monkeypatch.setattr(insides, "apply_patch", lambda patch: f"no ground for {patch.name}")


def test_litellm_counts_as_needed_if_dspy_does_not_reveal_the_engine(changed):
    assert insides.uses_litellm(dspy.LM("openai/gpt-4.1-nano"))


def test_a_price_counts_as_known_if_dspy_does_not_reveal_it(changed):
    assert insides.has_price(dspy.LM("openai/our-own"))


def test_no_connection_is_opened_in_advance_if_dspy_does_not_reveal_the_engine(changed):
    with pytest.raises(LookupError, match="no ground for the engine"):
        insides.native_provider(dspy.LM("openai/gpt-4.1-nano"), asynchronous=False)


@pytest.mark.parametrize("found", [None, ("engine", "request"), ("engine", "request", "provider", "more")])
def test_an_engine_that_dspy_selects_in_another_way_is_unknown(monkeypatch, found):
    monkeypatch.setattr(execution, "_engine", lambda lm, call, asynchronous: found)
    with pytest.raises(LookupError, match="_engine returns no"):
        insides.native_provider(dspy.LM("openai/gpt-4.1-nano"), asynchronous=False)
    assert insides.uses_litellm(dspy.LM("openai/gpt-4.1-nano"))


def test_no_additional_setting_is_used_if_dspy_would_refuse_it(changed):
    assert insides.usage_setting(1) == {}
    assert insides.usage_of_settings() is None


def test_slots_and_types_are_left_to_dspy_if_their_names_changed(changed):
    insides.renew_asyncify_slots()
    assert not insides.is_type_undefined({"IS_TYPE_UNDEFINED": True})


def test_every_reading_applies_to_this_dspy():
    assert [patch.name for patch in insides.READINGS if insides.apply_patch(patch) is not None] == []


def test_renewing_asyncify_slots_frees_them():
    asyncify = sys.modules["dspy.utils.asyncify"]
    before = asyncify.get_limiter()
    insides.renew_asyncify_slots()
    assert asyncify.get_limiter() is not before


def test_a_stream_counts_as_begun_if_dspy_does_not_reveal_it(changed):
    with insides.stream_progress() as progress:
        assert progress.emitted


def test_another_lm_may_be_called_without_a_sign_that_an_adapter_wrote_its_messages(changed):
    with insides.adapter_messages(dspy.LM("openai/any"), []):
        pass
