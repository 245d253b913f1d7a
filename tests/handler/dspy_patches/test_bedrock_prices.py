import dspy
import pytest

from dspy_lambda.dspy_patches import insides
from tests.support import AECHO, ECHO

KEYS = {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"}  # what the model server accepts


def registry(model, **settings):
    return {"default": "m", "registry": {"m": {"model": model, "cache": False, **settings}}}


@pytest.fixture
def signed(monkeypatch):
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_REGION", "us-east-1")


# USD per million tokens in and out, of DSPy 3.4.1's price map.
@pytest.mark.parametrize("source", [ECHO, AECHO], ids=["sync", "async"])
@pytest.mark.parametrize(
    ("settings", "price"), [({}, (0.15, 0.6)), ({"region": "us-gov-west-1"}, (0.18, 0.72))], ids=["its own", "another"]
)
def test_a_call_is_priced_in_the_region_of_its_alias(
    make_project, make_serve, records, models, signed, source, settings, price
):
    project = make_project({"echo": source}, models=registry("bedrock-mantle-chat:openai.gpt-oss-120b", **settings))
    serve = make_serve(project, DSPY_LAMBDA_API_BASE=models.address)  # the door's path comes after it
    serve({"inputs": {"question": "q"}})
    (call,) = records().calls
    expected = call["input_tokens"] * price[0] + call["output_tokens"] * price[1]
    assert call["input_tokens"] > 0
    assert call["cost_usd"] == pytest.approx(expected / 1e6)


def test_a_call_of_an_lm_in_code_is_priced_in_its_own_region(
    make_project, make_serve, records, models, signed, monkeypatch
):
    monkeypatch.setenv("DSPY_LAMBDA_API_BASE", models.address)
    made = 'self.lm = dspy.LM("bedrock-mantle-chat:openai.gpt-oss-120b", aws_region_name="us-gov-west-1", cache=False)'
    source = ECHO.replace("super().__init__()", f"super().__init__()\n        {made}").replace(
        "question=question)\n", "question=question, lm=self.lm)\n"
    )
    serve = make_serve(make_project({"echo": source}, models=registry("openai/gpt-4.1-nano")))
    serve({"inputs": {"question": "q"}})
    (call,) = records().calls
    assert call["cost_usd"] == pytest.approx((call["input_tokens"] * 0.18 + call["output_tokens"] * 0.72) / 1e6)


@pytest.mark.parametrize(
    ("model", "is_known"),
    [
        ("bedrock/amazon.nova-lite-v1:0", True),
        ("bedrock/converse/us.anthropic.claude-haiku-4-5-20251001-v1:0", True),
        ("bedrock-chat:openai.gpt-oss-120b-1:0", True),
        ("bedrock-mantle-chat:openai.gpt-oss-120b", True),
        ("bedrock-anthropic:anthropic.claude-haiku-4-5", True),
        ("bedrock/acme.unknown-v1:0", False),
    ],
)
def test_whether_a_bedrock_model_has_a_price_is_known_for_every_door(model, is_known):
    assert insides.has_price(dspy.LM(model)) == is_known


# USD per million tokens, of DSPy 3.4.1's price map.
@pytest.mark.parametrize(
    ("model", "region", "price"),
    [
        ("amazon.titan-embed-text-v2:0", "us-east-1", 0.02),
        ("amazon.titan-embed-text-v2:0", "us-gov-west-1", 0.2),
        ("eu.amazon.titan-embed-text-v2:0", "eu-west-1", 0.02),
        ("amazon.unknown", "us-east-1", None),
    ],
)
def test_embeddings_are_priced_by_all_names_in_their_region(model, region, price):
    found = insides.input_price("bedrock", model, region)
    assert found == (None if price is None else pytest.approx(price / 1e6))
