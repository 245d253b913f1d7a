"""Keys are reloaded after a provider rejects one, with the secret store's real protocol on moto."""

import os
from dataclasses import replace

import boto3
import pytest

from dspy_lambda.keys import Keys
from dspy_lambda.settings import SECRETS
from dspy_lambda_infra.local.queues import QueueServer
from tests.support import AECHO, ECHO, Serve, failures, sqs

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
    """A function that has the old key while the provider accepts only the new one."""
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
    (line,) = [line for line in lines if line.get("message") == "reloaded the keys after a provider rejected one"]
    assert line["changed"] == [NAME]
    assert not [line for line in lines if line.get("message") == "restored process state that a program changed"]
    assert os.environ[NAME] == NEW
    assert OLD not in str(lines)
    assert NEW not in str(lines)


def test_a_batch_that_failed_for_a_rejected_key_succeeds_when_it_comes_back(serve):
    batch = sqs(*[{"program": "AEcho", "inputs": {"question": "q"}}] * 3)
    assert failures(serve(batch)) == ["m0", "m1", "m2"]
    assert failures(serve(batch)) == []


def test_keys_are_reloaded_at_most_once_a_minute(serve, models, put, records):
    put("sk-wrong-0123456789")
    for _ in range(4):
        assert serve.post("/Echo", {"question": "q"}).status == 502
    assert len([line for line in records().lines if line.get("message", "").startswith("reloaded the keys")]) == 1
    put(NEW)
    assert serve.post("/Echo", {"question": "q"}).status == 502
    serve.environment.keys._read -= 61
    assert serve.post("/Echo", {"question": "q"}).status == 200


def test_if_the_store_cannot_be_read_the_keys_are_kept_and_reloading_is_retried(serve, records):
    keys = serve.environment.keys
    known = keys._settings
    keys._settings = replace(known, secrets=f"{NAME}=ssm:/none")
    for _ in range(2):
        assert serve.post("/Echo", {"question": "q"}).status == 502
    (line,) = [line for line in records().lines if line.get("message") == "the keys could not be reloaded"]
    assert line["reason"].startswith(f"{NAME}: ssm:/none cannot be read (ParameterNotFound)")
    keys._settings = known
    keys._read -= 61
    assert serve.post("/Echo", {"question": "q"}).status == 200


def test_a_function_without_a_store_reads_nothing(serve, records):
    serve.environment.keys.names = ()
    for _ in range(2):
        assert serve.post("/Echo", {"question": "q"}).status == 502
    assert not [line for line in records().lines if "keys" in line.get("message", "")]


HOLDS = """
import os

LM = dspy.LM("openai/m", api_key=os.environ["OPENAI_API_KEY"], api_base=os.environ["MODEL_URL"], cache=False)

class Holds(dspy.Module):
    def __init__(self):
        super().__init__()
        self.predict = dspy.Predict("question -> answer")
        self.predict.set_lm(LM)

    def forward(self, question: str) -> dspy.Prediction:
        return self.predict(question=question)
"""


def test_an_lm_that_a_program_made_with_the_old_key_has_the_new_one(make_project, make_serve, put, models, monkeypatch):
    put(NEW)
    models.behave(key=NEW)
    monkeypatch.setenv("MODEL_URL", models.url)
    environment = make_serve(make_project({"holds": HOLDS}), **{SECRETS: f"{NAME}=ssm:/key", NAME: OLD}).environment
    keys = Keys(
        (NAME,),
        environment.settings,
        environment.config,
        environment.models,
        environment.process,
        environment.telemetry,
    )
    keys._read -= 61
    environment.keys = keys
    ask = Serve(environment)
    assert ask.post("/Holds", {"question": "q"}).status == 502
    assert ask.post("/Holds", {"question": "q"}).status == 200
