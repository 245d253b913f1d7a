"""Regions in addresses and ARNs."""

import botocore.session
import pytest

from dspy_lambda.models.bedrock.regions import address, arn_region, region_in

SESSION = botocore.session.get_session()


@pytest.mark.parametrize("region", SESSION.get_available_regions("bedrock-runtime"))
def test_addresses_are_those_of_the_sdk(region):
    resolver = SESSION.get_component("endpoint_resolver")
    found = resolver.construct_endpoint("bedrock-runtime", region)
    assert address("converse", region) == address("chat", region) == f"https://{found['hostname']}"


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
