"""Fixtures of the tests of Bedrock: a patched DSPy, credentials in the environment, and a server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dspy_lambda.dspy_patches.table import patch_dspy
from dspy_lambda.models.bedrock.credentials import forget_credentials
from tests.handler.models.bedrock.bedrock_server import BedrockServer


@pytest.fixture(autouse=True)
def _bedrock(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Patch DSPy as a function does, and start with the credentials of a role and none of the developer's."""
    left_out: list[object] = []
    patch_dspy(lambda *log: left_out.append(log), core_share=1, fast=True, gateway=False)
    assert not left_out
    for name in ("AWS_BEARER_TOKEN_BEDROCK", "AWS_PROFILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "a session token")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent/credentials")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent/config")
    forget_credentials()
    yield
    forget_credentials()


@pytest.fixture
def bedrock() -> Iterator[BedrockServer]:
    server = BedrockServer()
    yield server
    server.close()
