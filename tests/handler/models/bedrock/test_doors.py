"""Which door serves a model."""

import pytest

from dspy_lambda.models.bedrock.doors import model_string, route


@pytest.mark.parametrize(
    ("model", "door", "model_id"),
    [
        ("bedrock/amazon.nova-lite-v1:0", "converse", "amazon.nova-lite-v1:0"),
        ("bedrock/us.anthropic.claude-opus-4-7", "converse", "us.anthropic.claude-opus-4-7"),
        ("bedrock/meta.llama3-70b-instruct-v1:0", "converse", "meta.llama3-70b-instruct-v1:0"),
        ("bedrock/arn:aws:bedrock:eu-west-1:1:x/y:0", "converse", "arn:aws:bedrock:eu-west-1:1:x/y:0"),
        ("bedrock/mistral.mistral-7b-instruct-v0:2", "converse", "mistral.mistral-7b-instruct-v0:2"),
        ("bedrock/openai.gpt-oss-120b-1:0", "chat", "openai.gpt-oss-120b-1:0"),
        ("bedrock/deepseek.v3.2", "chat", "deepseek.v3.2"),
        ("bedrock/qwen.qwen3-32b-v1:0", "chat", "qwen.qwen3-32b-v1:0"),
        ("bedrock/converse/openai.gpt-oss-120b-1:0", "converse", "openai.gpt-oss-120b-1:0"),
        ("bedrock-chat:a:b", "chat", "a:b"),
        ("bedrock_chat:a", "chat", "a"),
        ("bedrock-mantle-chat:a", "mantle-chat", "a"),
        ("bedrock-anthropic:a", "anthropic", "a"),
    ],
)
def test_the_id_or_the_prefix_names_the_door(model, door, model_id):
    found = route(model)
    assert (found.door, found.model_id) == (door, model_id)
    assert found.reason


@pytest.mark.parametrize("model", ["openai/gpt-4o", "bedrock", "bedrock/", "bedrock-chat:", "bedrock-chat/a", ""])
def test_other_models_have_no_door(model):
    assert route(model) is None
    assert model_string(model, None) == model


def test_a_guardrail_needs_converse():
    assert route("bedrock/openai.gpt-oss-120b-1:0", guarded=True).door == "converse"


@pytest.mark.parametrize(
    ("model", "door", "guarded", "string"),
    [
        ("bedrock/deepseek.v3.2", None, False, "bedrock-chat:deepseek.v3.2"),
        ("bedrock/deepseek.v3.2", "converse", False, "bedrock/converse/deepseek.v3.2"),
        ("bedrock/deepseek.v3.2", None, True, "bedrock/converse/deepseek.v3.2"),
        ("bedrock/deepseek.v3.2", "mantle-chat", False, "bedrock-mantle-chat:deepseek.v3.2"),
        ("bedrock/converse/a", "chat", False, "bedrock-chat:a"),
        ("bedrock-chat:a", None, False, "bedrock-chat:a"),
    ],
)
def test_a_model_string_selects_its_door_again(model, door, guarded, string):
    assert model_string(model, door, guarded=guarded) == string
    assert route(string).door == (door or route(model, guarded=guarded).door)
