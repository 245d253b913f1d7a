"""A provider that refuses a key has it read again, by the real secret store's protocol on moto."""

import os
from dataclasses import replace

import boto3
import pytest

from dspy_lambda.settings import SECRETS
from dspy_lambda_infra.local.queues import QueueServer
from tests.support import AECHO, ECHO, failures, sqs

NAME = "OPENAI_API_KEY"
OLD, NEW = "sk-old-0123456789", "sk-new-0123456789"


@pytest.fixture(scope="module")
def moto():
    server = QueueServer()
    server.start()
    yield server.address
    server.stop()


@pytest.fixture
def put(moto, monkeypatch):
    """Put a key into the store."""
    for name, value in {
        "AWS_ENDPOINT_URL": moto,
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "AWS_DEFAULT_REGION": "us-east-1",
        NAME: OLD,
    }.items():
        monkeypatch.setenv(name, value)
    store = boto3.client("ssm")
    return lambda value: store.put_parameter(Name="/key", Value=value, Type="SecureString", Overwrite=True)


@pytest.fixture
def serve(make_project, make_serve, put, models):
    """A function that has the old key, in a minute when the provider takes the new one alone."""
    put(NEW)
    models.behave(key=NEW)
    serve = make_serve(make_project({"echo": ECHO, "aecho": AECHO}), **{SECRETS: f"{NAME}=ssm:/key", NAME: OLD})
    serve.environment.keys.names = (NAME,)
    serve.environment.keys._read -= 61
    return serve


@pytest.mark.parametrize("program", ["Echo", "AEcho"])
def test_after_a_rotation_the_next_call_has_the_new_key(serve, records, program):
    assert serve.post(f"/{program}", {"question": "q"}).status == 502
    assert serve.post(f"/{program}", {"question": "q"}).status == 200
    assert serve.post(f"/{program}", {"question": "q"}).status == 200
    lines = records().lines
    (line,) = [line for line in lines if line.get("message") == "a provider refused a key; the keys were read again"]
    assert line["changed"] == [NAME]
    assert not [line for line in lines if line.get("message") == "a program changed the process; put back"]
    assert os.environ[NAME] == NEW
    assert OLD not in str(lines)
    assert NEW not in str(lines)


def test_a_refused_batch_is_done_when_it_comes_back(serve):
    batch = sqs(*[{"program": "AEcho", "inputs": {"question": "q"}}] * 3)
    assert failures(serve(batch)) == ["m0", "m1", "m2"]
    assert failures(serve(batch)) == []


def test_keys_are_read_at_most_once_a_minute(serve, models, put, records):
    put("sk-wrong-0123456789")
    for _ in range(4):
        assert serve.post("/Echo", {"question": "q"}).status == 502
    assert len([line for line in records().lines if line.get("message", "").startswith("a provider refused")]) == 1
    put(NEW)
    assert serve.post("/Echo", {"question": "q"}).status == 502
    serve.environment.keys._read -= 61
    assert serve.post("/Echo", {"question": "q"}).status == 200


def test_a_store_that_cannot_be_read_leaves_the_keys_and_is_asked_again(serve, records):
    keys = serve.environment.keys
    known = keys._settings
    keys._settings = replace(known, secrets=f"{NAME}=ssm:/none")
    for _ in range(2):
        assert serve.post("/Echo", {"question": "q"}).status == 502
    (line,) = [line for line in records().lines if line.get("message") == "the keys cannot be read again"]
    assert line["reason"].startswith(f"{NAME}: ssm:/none cannot be read (ParameterNotFound)")
    keys._settings = known
    keys._read -= 61
    assert serve.post("/Echo", {"question": "q"}).status == 200


def test_a_function_without_a_store_reads_nothing(serve, records):
    serve.environment.keys.names = ()
    for _ in range(2):
        assert serve.post("/Echo", {"question": "q"}).status == 502
    assert not [line for line in records().lines if "keys" in line.get("message", "")]
