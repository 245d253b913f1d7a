"""The handler in a separate process: its imports, its connections, and its message when it cannot start."""

import json
import os
import subprocess
import sys

import pytest

from dspy_lambda.environment import Environment
from dspy_lambda.errors import ConfigError
from tests.conftest import QUICKSTART, ROOT

SCRIPT = """
import json, socket, sys
reached = []
real = socket.socket.connect
def connect(self, address):
    if self.family != socket.AF_UNIX:
        reached.append(address)
    return real(self, address)
socket.socket.connect = connect
socket.getaddrinfo_real = socket.getaddrinfo
def getaddrinfo(host, *rest, **more):
    reached.append(host)
    return socket.getaddrinfo_real(host, *rest, **more)
socket.getaddrinfo = getaddrinfo

from dspy_lambda.main import environment, lambda_handler
at_init = list(reached)

class Context:
    aws_request_id = "request"
    def get_remaining_time_in_millis(self):
        return 30_000

for name in ("rest", "sqs-one"):
    answer = lambda_handler(json.load(open(f"events/{name}.json")), Context())
    assert answer.get("statusCode", 200) == 200 and not answer.get("batchItemFailures"), answer
print(json.dumps({"at_init": at_init, "reached": reached, "modules": sorted(sys.modules)}))
"""


def run(models, **variables):
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("LITELLM_")},
        "DSPY_LAMBDA_PROJECT": str(QUICKSTART),
        "OPENAI_API_KEY": "k",
        "DSPY_LAMBDA_API_BASE": models.url,
        **variables,
    }
    return subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_a_function_loads_only_what_it_needs_and_reaches_only_its_model(models):
    done = run(models, DSPY_LAMBDA_PROGRAM="Answer", DSPY_LAMBDA_MODULE="quickstart.modules.answer")
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    loaded = set(seen["modules"])
    assert not loaded & {"litellm", "boto3", "botocore.client", "aws_xray_sdk", "dspy_lambda_infra", "moto", "uvicorn"}
    assert {name for name in loaded if name.startswith("quickstart.modules.")} == {"quickstart.modules.answer"}
    assert seen["at_init"] == []
    assert {"127.0.0.1"} >= {place if isinstance(place, str) else place[0] for place in seen["reached"]}


def test_the_garbage_collector_skips_objects_created_at_init(models):
    script = """
import gc, sys
from dspy_lambda.main import environment
print(gc.get_freeze_count(), len(gc.get_objects()), file=sys.__stdout__)
"""
    environment = {**os.environ, "DSPY_LAMBDA_PROJECT": str(QUICKSTART), "OPENAI_API_KEY": "k"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, cwd=ROOT, capture_output=True, text=True, check=True
    )
    frozen, others = map(int, done.stdout.splitlines()[-1].split())
    assert frozen > 20 * others


def test_fastapi_and_mangum_are_loaded_only_for_http(models):
    script = SCRIPT.replace('("rest", "sqs-one")', '("sqs-one",)')
    environment = {**os.environ, "DSPY_LAMBDA_PROJECT": str(QUICKSTART), "OPENAI_API_KEY": "k"}
    environment["DSPY_LAMBDA_API_BASE"] = models.url
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    loaded = set(json.loads(done.stdout.splitlines()[-1])["modules"])
    assert not loaded & {"fastapi", "starlette", "mangum"}


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"DSPY_LAMBDA_PROGRAM": "Nope"}, "no program 'Nope'"),
        ({"DSPY_LAMBDA_SOURCES": "smtp"}, "unknown source 'smtp'"),
    ],
)
def test_a_function_that_cannot_serve_fails_at_init_with_the_reason(models, variables, says):
    done = run(models, **variables)
    assert done.returncode != 0
    last = (done.stderr or done.stdout).splitlines()[-1]
    assert "ConfigError" in last
    assert says in last


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"OPENAI_API_KEY": ""}, "models.registry.fast.env: the environment variable OPENAI_API_KEY is not set"),
        ({"DSPY_LAMBDA_PROJECT": "/nowhere"}, "/nowhere/dspy.config.yaml: no such file"),
        ({"DSPY_LAMBDA_DEADLINE_RESERVE_MS": "-1"}, "DSPY_LAMBDA_DEADLINE_RESERVE_MS: must be a whole number"),
    ],
)
def test_variables_that_no_function_can_serve_with_are_config_errors(models, variables, says):
    usual = {"DSPY_LAMBDA_PROJECT": str(QUICKSTART), "OPENAI_API_KEY": "k", "DSPY_LAMBDA_API_BASE": models.url}
    with pytest.raises(ConfigError) as raised:
        Environment({**usual, **variables})
    assert says in str(raised.value)
