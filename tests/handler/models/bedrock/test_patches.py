"""What a `dspy.LM` on Bedrock is, with DSPy patched as in a function."""

import copy
import json

import dspy
import pytest
from dspy.clients.backend_selection import select_backend


@pytest.mark.parametrize(
    ("model", "named"),
    [
        ("bedrock/amazon.nova-lite-v1:0", "bedrock/amazon.nova-lite-v1:0"),
        ("bedrock/converse/amazon.nova-lite-v1:0", "bedrock/amazon.nova-lite-v1:0"),
        ("bedrock/openai.gpt-oss-20b-1:0", "bedrock-chat:openai.gpt-oss-20b-1:0"),
        ("bedrock/converse/openai.gpt-oss-20b-1:0", "bedrock/converse/openai.gpt-oss-20b-1:0"),
        ("bedrock-anthropic:anthropic.claude-opus-4-7", "bedrock-anthropic:anthropic.claude-opus-4-7"),
    ],
)
def test_every_door_is_dspys_native_backend(model, named):
    lm = dspy.LM(model, cache=False)
    assert lm.model == named
    assert select_backend(lm).native
    assert dspy.LM(lm.model, cache=False).model == named


def test_a_named_door_keeps_what_the_model_can_do():
    lm = dspy.LM("bedrock/converse/amazon.nova-lite-v1:0", cache=False)
    assert lm.supports_function_calling


def test_a_region_is_part_of_the_address():
    assert str(dspy.LM("bedrock/m", aws_region_name="eu-west-1").kwargs["api_base"]) == (
        "https://bedrock-runtime.eu-west-1.amazonaws.com"
    )
    assert str(dspy.LM("bedrock-anthropic:m", aws_region_name="eu-west-1").kwargs["api_base"]) == (
        "https://bedrock-mantle.eu-west-1.api.aws"
    )
    assert "api_base" not in dspy.LM("bedrock/m").kwargs


def test_an_lm_with_a_region_can_be_saved_and_copied():
    lm = dspy.LM("bedrock/m", aws_region_name="eu-west-1", api_base="http://127.0.0.1:1")
    assert json.loads(json.dumps(lm.dump_state()))["model"] == "bedrock/m"
    assert copy.deepcopy(lm).kwargs["api_base"].region == "eu-west-1"


def test_other_models_are_left_alone():
    lm = dspy.LM("openai/gpt-4o", api_key="k", guardrailConfig={"a": 1})
    assert (lm.model, lm.kwargs["guardrailConfig"]) == ("openai/gpt-4o", {"a": 1})


@pytest.mark.parametrize("model", ["bedrock/acme.m", "bedrock-anthropic:acme.m"])
def test_a_saved_program_keeps_its_lms_region(model):
    saved, loaded = dspy.Predict("a -> b"), dspy.Predict("a -> b")
    saved.set_lm(dspy.LM(model, aws_region_name="eu-west-1"))
    state = json.loads(json.dumps(saved.dump_state()))
    loaded.load_state(state)  # DSPy drops addresses, which a file must not choose
    assert loaded.lm.kwargs["api_base"] == saved.lm.kwargs["api_base"]
    assert "api_base" not in state["lm"]
