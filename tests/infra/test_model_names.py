import pytest

from dspy_lambda.errors import ConfigError
from dspy_lambda_infra.config_warnings import config_warnings
from dspy_lambda_infra.model_names import check_providers, unknown_region
from dspy_lambda_infra.project import load_project
from tests.support import ECHO


def models(model, **keys):
    return {"default": "m", "registry": {"m": {"model": model, **keys}}}


@pytest.mark.parametrize(
    ("model", "meant"),
    [
        ("opnai/gpt-4o", "openai/gpt-4o"),
        ("antropic/claude", "anthropic/claude"),
        ("bedrok/amazon.nova-lite-v1:0", "bedrock/amazon.nova-lite-v1:0"),
        ("gemni/flash", "gemini/flash"),
    ],
)
def test_a_misspelled_provider_is_an_error_at_load_that_names_the_right_one(make_project, model, meant):
    with pytest.raises(ConfigError, match=rf"models\.registry\.m\.model: no provider .* did you mean {meant}\?"):
        load_project(make_project({"echo": ECHO}, models=models(model)))


@pytest.mark.parametrize(
    "model",
    [
        "openai/x",
        "bedrock/x",
        "ollama_chat/x",
        "hosted_vllm/x",
        "vertex_ai/x",
        "our-gateway/x",
        "gpt-4o",
        "bedrock-chat:x",
    ],
)
def test_known_providers_and_those_that_resemble_none_are_left_to_dspy(make_project, model):
    check_providers(load_project(make_project({"echo": ECHO}, models=models(model))).config)


def test_a_region_that_the_sdk_does_not_know_is_a_warning_before_a_deployment(make_project):
    assert unknown_region("eu-central-1") is None
    assert unknown_region("us-gov-west-1") is None
    project = load_project(make_project({"echo": ECHO}, models=models("bedrock/x", region="eu-wst-1")))
    (warning,) = [line for line in config_warnings(project) if "region" in line]
    assert warning == "models.registry.m.region: eu-wst-1: AWS's SDK knows no such Region; did you mean eu-west-1?"
