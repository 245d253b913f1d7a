"""Signatures, with botocore as the oracle."""

import json
from datetime import UTC, datetime

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from dspy.lm15 import NotConfiguredError

from dspy_lambda.dspy_patches import aws_requests
from dspy_lambda.dspy_patches.aws_requests import can_sign_at_once, signed
from dspy_lambda.dspy_patches.http_client import Request

CONTAINER = "AWS_CONTAINER_CREDENTIALS_FULL_URI"


@pytest.fixture(autouse=True)
def _no_other_credentials(monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", CONTAINER):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(aws_requests, "_fetched", [])


@pytest.mark.parametrize("token", [None, "a-session-token"])
@pytest.mark.parametrize(
    "path",
    [
        "/model/amazon.titan-embed-text-v2%3A0/invoke",
        "/model/cohere.embed-english-v3/invoke",
        "/model/arn%3Aaws%3Abedrock%3Aeu-west-1%3A123456789012%3Aapplication-inference-profile%2Fabc/invoke",
    ],
)
def test_signatures_equal_botocores(monkeypatch, path, token):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret/+=")
    if token:
        monkeypatch.setenv("AWS_SESSION_TOKEN", token)
    url = f"https://bedrock-runtime.eu-west-1.amazonaws.com{path}"
    body = json.dumps({"inputText": "ä"}).encode()
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    found = signed(Request(url, headers, body), "eu-west-1", "bedrock").headers
    request = AWSRequest("POST", url, headers=headers, data=body)
    oracle = SigV4Auth(Credentials("AKIDEXAMPLE", "secret/+=", token), "bedrock", "eu-west-1")
    request.context["timestamp"] = found["x-amz-date"]
    request.headers["X-Amz-Date"] = found["x-amz-date"]
    if token:
        request.headers["X-Amz-Security-Token"] = token
    canonical = oracle.canonical_request(request)
    assert found["authorization"].endswith(
        f"Signature={oracle.signature(oracle.string_to_sign(request, canonical), request)}"
    )


def test_credentials_are_fetched_once_and_again_before_they_expire(monkeypatch):
    from dspy._vendor.lm15.cloud import chains
    from dspy._vendor.lm15.credentials import AwsCredentials

    answers = [AwsCredentials("A", "s", expires_at=datetime(2020, 1, 1, tzinfo=UTC)), AwsCredentials("B", "s")]
    monkeypatch.setattr(chains, "resolve", lambda *_, **__: (answers.pop(0), None))
    request = Request("https://x.amazonaws.com/model/m/invoke", {}, b"")
    assert not can_sign_at_once()
    found = [signed(request, "eu-west-1", "bedrock").headers["authorization"] for _ in range(3)]
    assert ["Credential=A/" in found[0], "Credential=B/" in found[1], "Credential=B/" in found[2]] == [True] * 3
    assert can_sign_at_once()


def test_missing_credentials_are_an_error_that_says_so():
    with pytest.raises(NotConfiguredError, match="no credential found"):
        signed(Request("https://x.amazonaws.com/", {}, b""), "eu-west-1", "bedrock")
