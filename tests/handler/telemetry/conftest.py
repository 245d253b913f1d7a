"""A process as Lambda runs it, whose output is read back; and a collector."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.conftest import ROOT
from tests.handler.telemetry.collector_server import CollectorServer
from tests.support import Records

_SCRIPT = """
import json, sys
from dspy_lambda.main import lambda_handler
from tests.support import Context

for event in json.load(sys.stdin):
    try:
        lambda_handler(event, Context(aws_request_id="request"))
    except Exception:
        pass
"""


@pytest.fixture
def run_events(make_project, models):
    """Send events to a process, and return the lines that it wrote."""

    def run(source, *events, config=None, **variables):
        project = make_project({"program": source}, **(config or {}))
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("POWERTOOLS_", "AWS_LAMBDA_"))},
            "DSPY_LAMBDA_PROJECT": str(project),
            "DSPY_LAMBDA_API_BASE": models.url,
            "OPENAI_API_KEY": "k",
            "POWERTOOLS_SERVICE_NAME": "the-app",
            **variables,
        }
        command = [sys.executable, "-c", _SCRIPT]
        text = json.dumps(events)
        done = subprocess.run(
            command, input=text, env=environment, cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
        return Records([json.loads(line) for line in done.stdout.splitlines()])

    return run


@pytest.fixture
def server() -> Iterator[CollectorServer]:
    """A collector."""
    found = CollectorServer()
    yield found
    found.close()
