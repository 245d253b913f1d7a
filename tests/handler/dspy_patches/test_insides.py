"""What is read of DSPy's insides, on this DSPy."""

import dspy
import pytest

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
def test_whether_a_models_price_is_known(model, is_known):
    assert insides.has_price(dspy.LM(model)) == is_known
