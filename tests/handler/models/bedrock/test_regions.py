"""Regions in addresses and ARNs."""

import botocore.session
import pytest

from dspy_lambda.models.bedrock.regions import address, arn_region, region_in


@pytest.mark.parametrize("region", ["us-east-1", "eu-central-2", "us-gov-west-1"])
def test_addresses_are_those_of_the_sdk(region):
    client = botocore.session.get_session().create_client("bedrock-runtime", region_name=region)
    assert address("converse", region) == address("chat", region) == client.meta.endpoint_url


@pytest.mark.parametrize("door", ["converse", "chat", "mantle-chat", "anthropic"])
@pytest.mark.parametrize("region", ["us-east-1", "ap-southeast-2", "us-gov-west-1", "mx-central-1"])
def test_an_address_names_its_region(door, region):
    assert region_in(address(door, region)) == region


@pytest.mark.parametrize(
    ("url", "region"),
    [
        ("https://bedrock-runtime-fips.us-east-1.amazonaws.com/", "us-east-1"),
        ("https://vpce-0a-1b.bedrock-runtime.eu-west-1.vpce.amazonaws.com", "eu-west-1"),
        ("https://gateway.example/bedrock-runtime", None),
        ("https://bedrock-runtime.example.com", None),
        ("http://127.0.0.1:8080", None),
        ("", None),
    ],
)
def test_only_bedrocks_own_hosts_name_a_region(url, region):
    assert region_in(url) == region


@pytest.mark.parametrize(
    ("model_id", "region"),
    [
        ("arn:aws:bedrock:eu-west-1:123456789012:inference-profile/eu.amazon.nova-pro-v1:0", "eu-west-1"),
        ("arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-pro-v1:0", "us-east-1"),
        ("arn:aws:bedrock::1:x/y", None),
        ("us.amazon.nova-pro-v1:0", None),
        ("arn:aws", None),
    ],
)
def test_an_arn_names_its_region(model_id, region):
    assert arn_region(model_id) == region
