"""The Runtime API and the Extensions API of one execution environment, for a real runtime client in a process.

https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
https://docs.aws.amazon.com/lambda/latest/dg/runtimes-extensions-api.html
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

WAIT = 30.0  # only a failed test waits so long


class Client:
    """One of those that ask for events: the runtime or an extension."""

    def __init__(self) -> None:
        self.events: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self.asks = threading.Semaphore(0)
        self.is_suspended = False


class LambdaApi:
    """Passes one event at a time to the runtime and to the extension that has registered.

    Attributes:
        has_extensions: whether the Extensions API is there.
        registrations: the extension's name and the events that it wants, for each registration.
        answers: by request id.
        refusals: of requests for the next event, while the last one has not been answered.
        answered: set when the last event's answer has arrived.
    """

    def __init__(self, *, has_extensions: bool = True) -> None:
        self.has_extensions = has_extensions
        self.registrations: list[tuple[str, Any]] = []
        self.answers: dict[str, Any] = {}
        self.answered = threading.Event()
        self.refusals = 0
        self.runtime, self.extension = Client(), Client()
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                with suppress(OSError):
                    if self.path.endswith("/runtime/invocation/next"):
                        api._next(self, api.runtime)
                    elif self.headers["lambda-extension-identifier"] == "the-identifier":
                        api._next(self, api.extension)
                    else:
                        self.reply(403, {"errorType": "Extension.UnknownExtensionIdentifier"})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])) or b"null")
                if self.path == "/2020-01-01/extension/register":
                    api._register(self, body)
                else:
                    api.answers[self.path.split("/")[-2]] = body
                    api.answered.set()
                    self.reply(202, {})

            def reply(self, status: int, body: Any, **headers: str) -> None:
                data = json.dumps(body).encode()
                self.send_response(status)
                for name, value in {
                    "content-type": "application/json",
                    "content-length": str(len(data)),
                    **headers,
                }.items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        self.address = f"127.0.0.1:{self._server.server_port}"

    def _register(self, request: Any, body: Any) -> None:
        if not self.has_extensions:
            return request.reply(404, {})
        self.registrations.append((request.headers["lambda-extension-name"], body["events"]))
        return request.reply(200, {"functionName": "f"}, lambda_extension_identifier="the-identifier")

    def _next(self, request: Any, client: Client) -> None:
        if client.is_suspended:  # as Lambda's state machine of an extension does
            self.refusals += 1
            request.reply(403, {"errorType": "InvalidStateTransition"})
            return
        client.is_suspended = True
        client.asks.release()
        event = client.events.get()
        client.is_suspended = False
        if event is not None:
            request.reply(200, event["body"], **event["headers"])

    def wait_until_ready(self, seconds: float = WAIT) -> bool:
        """Wait until the runtime and the extension have asked for their next event: now Lambda would freeze both."""
        ends = time.monotonic() + seconds
        if not self.runtime.asks.acquire(timeout=seconds):
            return False
        left = max(0.0, ends - time.monotonic())
        return not self.registrations or self.extension.asks.acquire(timeout=left)

    def invoke(self, request_id: str, event: Any, seconds: float = 30.0) -> Any:
        """Send an event, and return its answer."""
        deadline = int((time.time() + seconds) * 1000)
        self.answered.clear()
        headers = {
            "lambda_runtime_aws_request_id": request_id,
            "lambda_runtime_deadline_ms": str(deadline),
            "lambda_runtime_invoked_function_arn": "arn:aws:lambda:eu-west-1:123456789012:function:f",
            "lambda_runtime_trace_id": "Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=0",
        }
        if self.registrations:
            about = {"eventType": "INVOKE", "deadlineMs": deadline, "requestId": request_id}
            self.extension.events.put({"body": about, "headers": {"lambda_extension_event_identifier": "e"}})
        self.runtime.events.put({"body": event, "headers": headers})
        assert self.answered.wait(WAIT)
        return self.answers[request_id]

    def start(self, folder: Path, code: str, **variables: str) -> subprocess.Popen[str]:
        """Start Lambda's runtime client with this code as the function's module; its handler is `handler`."""
        (folder / "function.py").write_text(code)
        usual = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "DSPY_"))}
        return subprocess.Popen(
            [sys.executable, "-m", "awslambdaric", "function.handler"],
            env={
                **usual,
                "AWS_LAMBDA_RUNTIME_API": self.address,
                "AWS_LAMBDA_FUNCTION_NAME": "f",
                "AWS_REGION": "eu-west-1",
                **variables,
            },
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def close(self) -> None:
        for client in (self.runtime, self.extension):
            client.events.put(None)
        self._server.shutdown()
        self._server.server_close()
