"""An internal Lambda extension: it keeps Lambda from freezing the environment until an invocation's spans are sent.

Lambda ends an invocation when the runtime and each extension have asked for their next event, but it passes on the
answer as soon as it has left. https://docs.aws.amazon.com/lambda/latest/dg/runtimes-extensions-api.html
"""

from __future__ import annotations

import json
import sys
import threading
import time
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any
from urllib.parse import urlsplit

from dspy_lambda.telemetry import Log
from dspy_lambda.telemetry.export.connection import Answer, BadAnswer, ConnectFailed, Connection
from dspy_lambda.telemetry.export.exporter import Exporter

NAME = "dspy-lambda"
_PATH = "/2020-01-01/extension"
_REGISTER_SECONDS = 1.0
_FLUSH_SECONDS = 1.0
# An extension that overruns the deadline makes Lambda count the invocation as timed out, and restart the environment.
_MARGIN_SECONDS = 0.2
_FIRST_PAUSE_SECONDS, _MAX_PAUSE_SECONDS = 0.05, 1.0


class Extension:
    """Flushes after each invocation, from a thread of its own.

    Args:
        api: host and port of the Extensions API, as in AWS_LAMBDA_RUNTIME_API.
        identifier: of a registration that this process has inherited from the one that it replaced, if any.

    Attributes:
        identifier: what Lambda knows the extension by; empty until it is registered.
    """

    def __init__(self, api: str, exporter: Exporter, log: Log, identifier: str = "") -> None:
        address = urlsplit(f"//{api}")
        self._address = address.hostname or "", address.port or 80
        self._exporter, self._log = exporter, log
        self.identifier = identifier
        self._answered: SimpleQueue[str | None] = SimpleQueue()

    def start(self) -> bool:
        """Register the extension, and begin to ask for events; return whether that is possible here.

        It must be called during init: Lambda registers no extension after the runtime has asked for its first event.
        """
        if (client := runtime_client()) is None or not (self.identifier or self._register()):
            return False
        self._watch(client)
        threading.Thread(target=self._run, name="dspy-lambda-extension", daemon=True).start()
        return True

    def _register(self) -> bool:
        connection = Connection(*self._address)
        headers = [("Lambda-Extension-Name", NAME), ("content-type", "application/json")]
        body, ends = json.dumps({"events": ["INVOKE"]}).encode(), time.monotonic() + _REGISTER_SECONDS
        try:
            answer = connection.request("POST", f"{_PATH}/register", headers, body, ends)
        except (OSError, BadAnswer, ConnectFailed):
            return False
        finally:
            connection.close()
        if answer.status == 200:
            self.identifier = answer.headers.get("lambda-extension-identifier", "")
        return bool(self.identifier)

    def _watch(self, client: Any) -> None:
        """Make the runtime client say which answer has left, each time before it asks for the next event."""
        ask, answered = client.wait_next_invocation, self._answered
        last: str | None = None

        def wait_next_invocation(self: Any) -> Any:
            nonlocal last
            if last is not None:
                answered.put(last)
            request = ask(self)
            last = getattr(request, "invoke_id", "") or ""
            return request

        client.wait_next_invocation = wait_next_invocation

    def _run(self) -> None:
        while True:
            # A program may throw an exception, even SystemExit, into any thread (PyThreadState_SetAsyncExc).
            with suppress(BaseException):
                self._ask_forever()

    def _ask_forever(self) -> None:
        connection = Connection(*self._address, idle_seconds=float("inf"))
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                answer = self._next(connection)
                event = json.loads(answer.body) if answer.status == 200 else None
            except (OSError, BadAnswer, ConnectFailed, ValueError):
                event = None
            if isinstance(event, dict):
                pause = _FIRST_PAUSE_SECONDS
                self._handle(event)
                continue
            # Until Lambda answers: every invocation would wait for an extension that has stopped asking. The process
            # that this one replaced may have asked already, which is refused until the event that it asked for.
            time.sleep(pause)
            pause = min(2 * pause, _MAX_PAUSE_SECONDS)

    def _next(self, connection: Connection) -> Answer:
        headers = [("Lambda-Extension-Identifier", self.identifier)]
        return connection.request("GET", f"{_PATH}/event/next", headers, b"", None)

    def _handle(self, event: dict[str, Any]) -> None:
        try:
            if event.get("eventType") == "INVOKE":
                ends = float(event["deadlineMs"]) / 1000 - _MARGIN_SECONDS
                self._wait_for_answer(event.get("requestId"), ends)
                self._exporter.flush(min(_FLUSH_SECONDS, ends - time.time()))
        except Exception as error:  # the thread must go on asking
            self._log("ERROR", "traces cannot be exported", {"reason": f"{type(error).__name__} in the extension"})

    def _wait_for_answer(self, request_id: Any, ends: float) -> None:
        """Wait until the invocation's answer has left, or its time is over."""
        while (left := ends - time.time()) > 0:
            try:
                answered = self._answered.get(timeout=left)
            except Empty:
                return
            if answered in (request_id, "") or not request_id:  # others are of invocations that took too long
                return


def runtime_client() -> Any:
    """Return the class of Lambda's runtime client whose loop runs this process, or None."""
    module = sys.modules.get("awslambdaric.lambda_runtime_client")
    client = getattr(module, "LambdaRuntimeClient", None)
    return client if callable(getattr(client, "wait_next_invocation", None)) else None
