"""A deployed stack: access to its functions, queues and log lines."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest

from dspy_lambda_infra.verify.project import PROGRAM

# Whether a claim holds (None: it could not be checked), and what was seen.
Seen = tuple[bool | None, str]


@dataclass(frozen=True)
class Answer:
    """An HTTP answer; header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float

    def __str__(self) -> str:
        return f"{self.status} after {self.seconds:.1f} s: {self.body[:200].decode(errors='replace')}"

    @property
    def json(self) -> Any:
        """Return the parsed body; None if it is not JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


@dataclass(frozen=True)
class Stack:
    """A deployed stack.

    Attributes:
        outputs: CloudFormation's.
        kind: the API's kind: `rest`, `http` or `url`.
        auth: the API's auth: `iam`, `api_key` or `jwt`.
        token: the token for `jwt`.
        shared: the outputs of the stack that several scenarios share.
        deploy: runs `dspy-lambda deploy` on the stack with additional options and returns its exit status.
    """

    session: boto3.Session
    name: str
    outputs: dict[str, str]
    kind: str = "rest"
    auth: str = "iam"
    token: str = ""
    shared: dict[str, str] | None = None
    deploy: Callable[[list[str]], int] | None = None

    def client(self, service: str) -> Any:
        """Return a boto3 client for a service."""
        return self.session.client(service)  # type: ignore[call-overload]

    def call(self, question: str) -> Answer:
        """Call the program once."""
        return self.request("POST", f"/{PROGRAM}", json.dumps({"question": question}).encode())

    def request(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        *,
        authorized: bool = True,
    ) -> Answer:
        """Send one request to the API, authorized unless stated otherwise."""
        url = self._address(path) + path
        request = AWSRequest(method, url, data=body or None, headers={"Content-Type": "application/json"})
        for name, value in (headers or {}).items():
            request.headers[name] = value
        if authorized:
            self._authorize(request)
        plain = urllib.request.Request(url, body or None, dict(request.headers.items()), method=method)
        begin = time.monotonic()
        try:
            with urllib.request.urlopen(plain, timeout=60) as answer:
                status, found, content = answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            status, found, content = error.code, error.headers, error.read()
        # Browsers reject some headers if they occur twice.
        lower = {name.lower(): ", ".join(found.get_all(name, [])) for name in found}
        return Answer(status, lower, content, time.monotonic() - begin)

    def resource(self, logical_id: str) -> str:
        """Return a resource's physical id."""
        found = self.client("cloudformation").describe_stack_resource(StackName=self.name, LogicalResourceId=logical_id)
        physical_id: str = found["StackResourceDetail"]["PhysicalResourceId"]
        return physical_id

    def program_calls(self, program: str = PROGRAM) -> list[dict[str, Any]]:
        """Return the log records of the program's calls so far, oldest first, each with `at` in seconds."""
        pages = self.client("logs").get_paginator("filter_log_events")
        found = []
        for page in pages.paginate(logGroupName=self.resource(f"{program}LogGroup"), filterPattern='"program call"'):
            for event in page["events"]:
                line = json.loads(event["message"])
                if line.get("message") == "program call":
                    found.append({**line, "at": event["timestamp"] / 1000})
        return sorted(found, key=lambda record: record["at"])

    def queue(self, program: str = PROGRAM) -> str:
        """Return the URL of a program's queue."""
        return self.outputs[f"{program}QueueUrl"]

    def dead_letter_queue(self, program: str = PROGRAM) -> str:
        """Return the URL of a program's dead-letter queue."""
        return self.outputs[f"{program}DeadLetterQueueUrl"]

    def count(self, queue: str) -> int:
        """Return how many records a queue has, including those in flight."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.client("sqs").get_queue_attributes(QueueUrl=queue, AttributeNames=names)["Attributes"]
        return sum(int(found[name]) for name in names)

    def send(self, *questions: str, program: str = PROGRAM) -> list[str]:
        """Send questions to a program's queue (for FIFO queues, in one message group); return the message ids."""
        bodies = [json.dumps({"question": question}) for question in questions]
        return self.send_bodies(*bodies, program=program)

    def send_bodies(self, *bodies: str, program: str = PROGRAM) -> list[str]:
        """Send up to 10 unmodified bodies; return the message ids."""
        url = self.queue(program)
        entries: list[dict[str, Any]] = [{"Id": str(n), "MessageBody": body} for n, body in enumerate(bodies)]
        if url.endswith(".fifo"):
            stamp = time.monotonic_ns()
            for n, entry in enumerate(entries):
                entry |= {"MessageGroupId": "group", "MessageDeduplicationId": f"{stamp}-{n}"}
        sent = self.client("sqs").send_message_batch(QueueUrl=url, Entries=entries)["Successful"]
        ids = {entry["Id"]: entry["MessageId"] for entry in sent}
        return [ids[str(n)] for n in range(len(bodies))]

    def _address(self, path: str) -> str:
        if self.kind != "url":
            return self.outputs["ApiUrl"].rstrip("/")
        return self.outputs[f"{PROGRAM}Url" if path == f"/{PROGRAM}" else "CatalogueUrl"].rstrip("/")

    def _authorize(self, request: AWSRequest) -> None:
        if self.auth == "jwt":
            request.headers["Authorization"] = self.token
        elif self.auth == "api_key":
            request.headers["x-api-key"] = self._api_key()
        elif (credentials := self.session.get_credentials()) is not None:
            service = "lambda" if self.kind == "url" else "execute-api"
            SigV4Auth(credentials, service, self.session.region_name).add_auth(request)

    def _api_key(self) -> str:
        found = self.client("cloudformation").describe_stack_resources(StackName=self.name)["StackResources"]
        key = next(r["PhysicalResourceId"] for r in found if r["ResourceType"] == "AWS::ApiGateway::ApiKey")
        value: str = self.client("apigateway").get_api_key(apiKey=key, includeValue=True)["value"]
        return value
