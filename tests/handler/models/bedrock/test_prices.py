import re

import pytest
from dspy.clients import model_metadata

from dspy_lambda.models.bedrock.prices import NAMESPACES, find_price

ACCOUNT = "arn:aws:bedrock:eu-west-1:123456789012"


@pytest.fixture(scope="module")
def prices():
    """DSPy's own price map, which comes with it."""
    return model_metadata._snapshot()


# The prices of DSPy 3.4.1's map, in USD per million input tokens.
@pytest.mark.parametrize(
    ("provider", "model", "region", "price"),
    [
        ("bedrock", "amazon.nova-lite-v1:0", None, 0.06),
        ("bedrock", "us.amazon.nova-lite-v1:0", "us-east-1", 0.06),
        ("bedrock", "apac.amazon.nova-lite-v1:0", "ap-south-1", 0.063),
        ("bedrock", "amazon.nova-pro-v1:0", "us-gov-west-1", 0.96),
        ("bedrock", "converse/amazon.nova-micro-v1:0", None, 0.035),
        ("bedrock", "anthropic.claude-haiku-4-5-20251001-v1:0", None, 1),
        ("bedrock", "us.anthropic.claude-haiku-4-5-20251001-v1:0", None, 1.1),
        ("bedrock", "global.anthropic.claude-haiku-4-5-20251001-v1:0", "us-gov-west-1", 1),
        ("bedrock", "anthropic.claude-3-5-sonnet-20241022-v2:0", None, 3),
        ("bedrock", "anthropic.claude-3-7-sonnet-20240620-v1:0", None, 3.6),
        ("bedrock", "anthropic.claude-3-7-sonnet-20250219-v1:0", None, 3),
        ("bedrock", "anthropic.claude-3-7-sonnet-20250219-v1:0:200k", None, 3),
        ("bedrock", "us.meta.llama3-3-70b-instruct-v1:0", None, 0.72),
        ("bedrock", "meta.llama3-8b-instruct-v1:0", "sa-east-1", 0.5),
        ("bedrock", "ca.meta.llama3-8b-instruct-v1:0", "us-east-1", 0.3),
        ("bedrock", f"{ACCOUNT}:inference-profile/eu.amazon.nova-2-lite-v1:0", None, 0.33),
        ("bedrock", "arn:aws:bedrock:ap-south-1::foundation-model/deepseek.v3.2", "us-east-1", 0.74),
        ("bedrock-chat", "openai.gpt-oss-120b-1:0", None, 0.15),
        ("bedrock-chat", "deepseek.v3.2", "ap-south-1", 0.74),
        ("bedrock-chat", "us.deepseek.v3.2", "us-east-1", 0.62),
        ("bedrock-chat", "qwen.qwen3-32b-v1:0", "us-west-2", 0.15),
        ("bedrock-mantle-chat", "openai.gpt-oss-120b", None, 0.15),
        ("bedrock-mantle-chat", "openai.gpt-oss-120b", "us-gov-west-1", 0.18),
        ("bedrock-mantle-chat", "zai.glm-5", None, 1),
        ("bedrock-mantle-chat", "qwen.qwen3-32b", None, 0.15),
        ("bedrock-anthropic", "anthropic.claude-haiku-4-5", None, 1),
        ("bedrock-anthropic", "anthropic.claude-opus-4-6", None, 5),
        ("bedrock-anthropic", "anthropic.claude-opus-5-5", None, 4.4),
    ],
)
def test_a_model_has_its_price_by_any_of_its_names(prices, provider, model, region, price):
    assert find_price(prices, provider, model, region)["input_cost_per_token"] * 1e6 == pytest.approx(price)


@pytest.mark.parametrize(
    "model",
    [
        "acme.unknown-v1:0",
        "claude-haiku-4-5",
        "gpt-4.1-nano",
        f"{ACCOUNT}:application-inference-profile/abcdefghijkl",
        f"{ACCOUNT}:provisioned-model/abcdefghijkl",
        "arn:aws:sagemaker:us-east-1:123456789012:endpoint/amazon.nova-lite-v1:0",
        "twelvelabs.pegasus-1-2-v1:0",  # input is billed by the second
    ],
)
def test_a_model_without_token_prices_has_none(prices, model):
    assert [find_price(prices, provider, model, "eu-west-1") for provider in NAMESPACES] == [{}] * 4


def test_every_priced_chat_model_on_bedrock_is_found(prices):
    name = re.compile(r"(?:bedrock_mantle/|bedrock/)?(?:invoke/)?(?:([a-z]{2}(?:-[a-z]+)+-\d)/)?(.+)")
    found = {}
    for key, entry in prices.items():
        is_priced = {"input_cost_per_token", "output_cost_per_token"} <= entry.keys()
        if entry.get("litellm_provider") in NAMESPACES["bedrock"] and entry.get("mode") == "chat" and is_priced:
            region, model = name.fullmatch(key).groups()
            mantle = entry["litellm_provider"] == "bedrock_mantle"
            found[key] = find_price(prices, "bedrock-mantle-chat" if mantle else "bedrock", model, region)
    assert len(found) > 400
    assert [key for key, price in found.items() if not price] == []
    # Two entries differ where the map has a model both with and without its namespace.
    assert [k for k, p in found.items() if p["input_cost_per_token"] != prices[k]["input_cost_per_token"]] == []
