import pytest

from dspy_lambda.models.bedrock.profiles import split_arn, split_profile


@pytest.mark.parametrize("geography", ["us", "eu", "apac", "jp", "au", "ca", "us-gov", "global"])
def test_an_inference_profile_starts_with_its_geography(geography):
    assert split_profile(f"{geography}.anthropic.claude-opus-5") == (geography, "anthropic.claude-opus-5")


@pytest.mark.parametrize("model", ["amazon.nova-lite-v1:0", "ai21.jamba-1-5-mini-v1:0", "zai.glm-4.7", "deepseek.v3.2"])
def test_a_foundation_model_starts_with_its_provider(model):
    assert split_profile(model) == (None, model)


def test_an_arn_names_region_account_kind_and_id():
    arn = "arn:aws-us-gov:bedrock:us-gov-west-1:123456789012:inference-profile/us-gov.anthropic.claude-opus-5"
    assert split_arn(arn) == ("us-gov-west-1", "123456789012", "inference-profile", "us-gov.anthropic.claude-opus-5")
    assert split_arn("arn:aws:bedrock:::foundation-model/amazon.nova-lite-v1:0") == (
        *("", "", "foundation-model"),
        "amazon.nova-lite-v1:0",
    )
    assert split_arn("amazon.nova-lite-v1:0") is None
