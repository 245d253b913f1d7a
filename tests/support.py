"""Test helpers that are not fixtures."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import dspy

from dspy_lambda.environment import Environment
from dspy_lambda.invoke import invoke
from dspy_lambda.programs.program import choose_entry
from dspy_lambda.programs.schemas import Schemas, schemas_of
from dspy_lambda_infra.local.events import EVENTS, Request, Response, response

ECHO = """
class Echo(dspy.Module):
    def __init__(self):
        super().__init__()
        self.predict = dspy.Predict("question -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        return self.predict(question=question)
"""

AECHO = """
class AEcho(dspy.Module):
    def __init__(self):
        super().__init__()
        self.predict = dspy.Predict("question -> answer")

    async def aforward(self, question: str) -> dspy.Prediction:
        return await self.predict.acall(question=question)
"""


RLM = """
class Calculate(dspy.Module):
    def __init__(self):
        super().__init__()
        self.think = dspy.RLM("question -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        return self.think(question=question)
"""


@dataclass
class Context:
    """A Lambda context."""

    remaining_ms: int = 30_000
    aws_request_id: str = field(default_factory=lambda: str(uuid.uuid4()))

    def get_remaining_time_in_millis(self) -> int:
        return self.remaining_ms


class Serve:
    """Sends events to an environment as Lambda would."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment

    def __call__(self, event: Any, context: Context | None = None) -> Any:
        self.environment.process.note(["PYTEST_CURRENT_TEST"])
        # Through JSON, like the runtime client.
        answer = invoke(self.environment, event, context or Context())
        return json.loads(json.dumps(answer, ensure_ascii=False).encode())

    def close(self) -> None:
        """Release what an environment holds until its process ends: connections, threads, the loop."""
        environment = self.environment
        for lm in environment.models.values():
            lm.close()
        environment.runner.abandon()
        # Two descriptors for each of some thousand environments: DSPy's transport uses select, limited to 1,024.
        for _, copy in environment.process._descriptors:
            os.close(copy)

    def http(self, request: Request, kind: str = "rest", context: Context | None = None) -> Response:
        """Return the HTTP answer as a client behind that kind of gateway gets it."""
        return response(kind, json.dumps(self(EVENTS[kind](request), context)).encode())

    def post(
        self, path: str, body: Any, kind: str = "rest", headers: dict[str, str] | None = None, **more: Any
    ) -> Response:
        """POST a body: bytes as they are, anything else as JSON."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = list((headers if headers is not None else {"Content-Type": "application/json"}).items())
        return self.http(Request("POST", path, headers=sent, body=data), kind, **more)

    def get(self, path: str, kind: str = "rest") -> Response:
        return self.http(Request("GET", path), kind)


class Records:
    """Log lines."""

    def __init__(self, lines: list[dict[str, Any]]) -> None:
        self.lines = lines
        self.calls = [line for line in lines if line.get("message") == "program call"]
        self.metrics = [line for line in lines if "_aws" in line]

    def values(self, metric: str, program: str | None = None) -> list[float]:
        """Return all values of a metric, in order."""
        blobs = [blob for blob in self.metrics if program in (None, blob["program"])]
        return [value for blob in blobs for value in blob.get(metric, [])]


# How long a test waits for an expected condition: a busy machine is slow, not broken.
PATIENCE_SECONDS = 60.0


def wait_until(condition: Callable[[], object], seconds: float = PATIENCE_SECONDS) -> None:
    """Wait until a condition becomes true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


async def until(condition: Callable[[], object], seconds: float = PATIENCE_SECONDS) -> None:
    """Like `wait_until`, without blocking the event loop."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        await asyncio.sleep(0.01)


def unmeasured() -> dict[str, str]:
    """Return this process's variables without those for coverage, which would fail first when memory is limited."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}


def without_retries(serve: Serve) -> Serve:
    """Make a failed model call fail its call immediately, without pauses for retries."""
    for lm in serve.environment.models.values():
        lm.num_retries = 0
    return serve


def module_of(serve: Serve, program: str) -> Any:
    """Return the module that defines a program, with its events and its notes of what ran."""
    return sys.modules[serve.environment.programs[program].module]


def schemas(program: dspy.Module) -> Schemas:
    """Return the schemas of a program."""
    return schemas_of(program, choose_entry(program).method)


def sqs(*bodies: Any, fifo: str | None = None) -> dict[str, Any]:
    """Return a batch whose records have these bodies (strings unchanged) and the ids m0, m1, ..."""
    arn = f"arn:aws:sqs:us-east-1:123456789012:Queue{'.fifo' if fifo else ''}"
    return {
        "Records": [
            {
                "messageId": f"m{position}",
                "body": body if isinstance(body, str) else json.dumps(body),
                "attributes": {"MessageGroupId": fifo} if fifo else {},
                "eventSource": "aws:sqs",
                "eventSourceARN": arn,
            }
            for position, body in enumerate(bodies)
        ]
    }


def failures(answer: dict[str, Any]) -> list[str]:
    """Return the ids that a batch's answer reports as failed."""
    return [failure["itemIdentifier"] for failure in answer["batchItemFailures"]]


def problem(answer: Response) -> dict[str, Any]:
    """Return the problem document of an answer, which must be JSON with its media type."""
    assert dict(answer.headers)["content-type"] == "application/problem+json"
    document: dict[str, Any] = json.loads(answer.body)
    assert document["status"] == answer.status
    return document


def read_terminal(screen: int) -> bytes:
    """Return all that is written to a terminal until its last writer ends; closes it."""
    shown = b""
    with contextlib.suppress(OSError):  # EIO: the process has ended
        while data := os.read(screen, 10_000):
            shown += data
    os.close(screen)
    return shown
