"""Helpers for the local Lambda's tests that are not fixtures."""

import json
import os
import subprocess
import urllib.error
import urllib.request

from dspy_lambda_infra.local.events import Request
from tests.support import Records

# An environment variable that identifies all processes of a test run, including descendants.
RUN = f"dspy-lambda-test-{os.getpid()}"


SLEEPER = """
import asyncio, os, re, uuid
ENVIRONMENT = str(uuid.uuid4())
class Sleeper(dspy.Module):
    async def aforward(self, seconds: float = 0, hold: bool = False, size: int = 0, exit: bool = False) -> str:
        if exit: os._exit(3)
        if hold: re.match("(a+)+$", "a" * 64 + "b")  # holds the GIL for a very long time
        await asyncio.sleep(seconds)
        return ENVIRONMENT + "x" * size
"""


class Lines:
    """What functions logged: `lines` of JSON, and `others`, such as the stacks before a kill."""

    def __init__(self):
        self.lines = []
        self.others = []

    def __call__(self, _, line):
        try:
            self.lines.append(json.loads(line))
        except ValueError:
            self.others.append(line)

    @property
    def records(self):
        return Records(self.lines)

    @property
    def reports(self):
        return self.reports_of("platform.report")

    def reports_of(self, kind):
        return [line["record"] for line in self.lines if line.get("type") == kind]


def post(program, **inputs):
    return Request(
        "POST", f"/{program}", headers=[("Content-Type", "application/json")], body=json.dumps(inputs).encode()
    )


def direct(**inputs):
    return json.dumps({"inputs": inputs}).encode()


def started_from_here():
    """Yield id, and command line with environment, of each process that this test run started."""
    listed = subprocess.run(["ps", "axeww", "-o", "pid=,command="], capture_output=True, text=True, check=True)
    pairs = (line.split(maxsplit=1) for line in listed.stdout.splitlines())
    return {pid: command for pid, command in pairs if f"TEST_RUN_OF_LOCAL={RUN}" in command}


def processes():
    """Return the function processes that this test run started."""
    return {pid for pid, command in started_from_here().items() if "awslambdaric" in command}


def http_request(url, body):
    return urllib.request.Request(url, body, {"Content-Type": "application/json"})


def status_of(request):
    try:
        return urllib.request.urlopen(request).status
    except urllib.error.HTTPError as error:
        return error.code
