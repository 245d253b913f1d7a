"""The runtime interface emulator without Docker: a built artifact behind AWS's own runtime client."""

import json
import sys
import urllib.request

import pytest

from tests.sam.answers import of_payload
from tests.sam.base_image import NoBaseImage, emulator
from tests.sam.sam import dspy_lambda, free_port, process

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
FRANCE = "gpt-4.1-nano: What is the capital of France?"


@pytest.fixture(scope="module")
def artifact(make_copy, tmp_path_factory):
    folder = tmp_path_factory.mktemp("artifact") / "Answer"
    dspy_lambda(make_copy(), "build", "--function", "Answer", "--python", PYTHON, "--output", str(folder))
    return folder


@pytest.fixture(scope="module")
def post(artifact, _model_server):
    """Invoke the artifact's function; without DSPY_LAMBDA_PROGRAM it serves all programs."""
    try:
        rie = emulator()
    except NoBaseImage as reason:
        pytest.skip(str(reason))
    port, runtime_api = free_port(), free_port()
    variables = {
        "PYTHONPATH": str(artifact),  # before this interpreter's own packages, which include awslambdaric
        "LAMBDA_TASK_ROOT": str(artifact),
        "AWS_LAMBDA_FUNCTION_NAME": "AnswerFunction",
        "AWS_LAMBDA_FUNCTION_TIMEOUT": "30",
        "OPENAI_API_KEY": "k",
        "DSPY_LAMBDA_API_BASE": _model_server.url,
        "HOME": "/tmp",
    }
    words = [str(rie), "--runtime-interface-emulator-address", f"127.0.0.1:{port}"]
    words += ["--runtime-api-address", f"127.0.0.1:{runtime_api}"]
    words += [sys.executable, "-m", "awslambdaric", "dspy_lambda.main.lambda_handler"]
    address = f"http://127.0.0.1:{port}/2015-03-31/functions/function/invocations"

    def post(event):
        with urllib.request.urlopen(address, json.dumps(event).encode(), timeout=60) as answer:
            return answer.read()

    with process(words, artifact, artifact.parent / "emulator.log", variables, port):
        yield post


@pytest.mark.parametrize("name", ["rest", "http", "http-stage", "url", "alb"])
def test_an_http_event_gets_an_answer_that_its_gateway_accepts(post, models, event, name):
    answer = of_payload(post(event(name)))
    assert (answer["statusCode"], answer["isBase64Encoded"]) == (200, False)
    assert answer["headers"] == {"content-type": "application/json"}
    assert answer["body"] == {"answer": FRANCE}


def test_a_batch_reports_only_its_bad_record(post, models, event):
    bad = event("sqs-one-bad")["Records"][3]["messageId"]
    assert of_payload(post(event("sqs-one-bad"))) == {"batchItemFailures": [{"itemIdentifier": bad}]}
    assert models.stats()["requests"] == 9
    assert of_payload(post(event("sqs-ten"))) == {"batchItemFailures": []}


def test_a_direct_event_returns_the_outputs(post, models, event):
    answer = of_payload(post(event("direct")))
    assert answer["program"] == "Triage"
    assert answer["outputs"]["queue"] == "billing"


def test_an_error_has_its_type_and_comes_from_the_artifacts_own_code(post, artifact):
    error = json.loads(post({"program": "Answer", "inputs": {}}))
    assert error["errorType"] == "InvalidInput"
    assert error["errorMessage"] == "The inputs do not fit the program: question: Field required."
    assert all(str(artifact) in line for line in error["stackTrace"] if "lambda_handler" in line or "handle" in line)
    assert of_payload(post({"what": 1}))["errorType"] == "UnknownEvent"
