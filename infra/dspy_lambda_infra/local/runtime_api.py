"""The Runtime API: the HTTP server that one execution environment's runtime client talks to.

https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from dspy_lambda.quotas import MAX_ANSWER_BYTES
from dspy_lambda_infra.local.access import refuse_browser, refuse_host
from dspy_lambda_infra.local.answer import Answer, error_answer
from dspy_lambda_infra.local.extensions_api import Extensions

_VERSION = "/2018-06-01/runtime"


@dataclass(frozen=True)
class Event:
    """One invocation's event.

    Attributes:
        deadline: when the function times out, in seconds since the epoch.
        trace: the X-Ray trace header, which the runtime client puts into the variable _X_AMZN_TRACE_ID.
    """

    request_id: str
    payload: bytes
    deadline: float
    trace: str


def _nothing() -> None:
    """Ignore that the environment is idle."""


class RuntimeApi:
    """Passes events to one runtime client and its extensions, one at a time, and receives the answers.

    Args:
        function: the function's name.
        handler: the function's handler.
        on_idle: called when `ready` is set.

    Attributes:
        ready: set while the client and all extensions wait for an event. For Lambda, init and each invocation end
            then, not with the answer.
        extensions: the registered extensions.
        broken: whether the client will exit because its answer was refused.
    """

    def __init__(self, function: str, handler: str = "", on_idle: Callable[[], None] = _nothing) -> None:
        self.ready = asyncio.Event()
        self.broken = False
        about = {"functionName": function, "functionVersion": "$LATEST", "handler": handler}
        self.extensions = Extensions(about, self._settle_ready)
        self._init_error: Answer | None = None
        self._function = function
        self._on_idle = on_idle
        self._is_waiting = False
        self._runner: web.AppRunner | None = None
        self._port = 0
        self._events: asyncio.Queue[Event] = asyncio.Queue(1)
        self._answer: asyncio.Future[Answer] | None = None

    @property
    def init_error(self) -> Answer | None:
        """The client's or an extension's error if init failed, or None."""
        return self._init_error or self.extensions.init_error

    async def start(self) -> str:
        """Listen on loopback and return host and port."""
        app = web.Application(client_max_size=64 * 2**20, middlewares=[self._refuse_others])
        app.router.add_get(f"{_VERSION}/invocation/next", self._next)
        app.router.add_post(_VERSION + "/invocation/{id}/response", self._respond)
        app.router.add_post(_VERSION + "/invocation/{id}/error", self._fail)
        app.router.add_post(f"{_VERSION}/init/error", self._fail_init)
        self.extensions.add_routes(app.router)
        # The runtime client sends an error's text in a header of up to 1 MB.
        self._runner = web.AppRunner(
            app, access_log=None, shutdown_timeout=0.1, max_field_size=2**21, max_line_size=2**16
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, self._port = self._runner.addresses[0][:2]
        return f"{host}:{self._port}"

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    def send(self, event: Event) -> asyncio.Future[Answer]:
        """Send one event; return the future answer."""
        self.ready.clear()
        self._is_waiting = False
        self._answer = asyncio.get_running_loop().create_future()
        self._events.put_nowait(event)
        self.extensions.send(self._for_extensions(event))
        return self._answer

    def _for_extensions(self, event: Event) -> dict[str, Any]:
        return {
            "eventType": "INVOKE",
            "deadlineMs": int(event.deadline * 1000),
            "requestId": event.request_id,
            "invokedFunctionArn": function_arn(self._function),
            "tracing": {"type": "X-Amzn-Trace-Id", "value": event.trace},
        }

    def _settle_ready(self) -> None:
        if self._is_waiting and self.extensions.are_waiting and not self.ready.is_set():
            self._on_idle()
            self.ready.set()

    @web.middleware
    async def _refuse_others(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse requests that a web page could send: the next event goes to whoever requests it."""
        reason = refuse_host(request.headers.getall("Host", []), self._port) or refuse_browser(request.headers)
        if reason is None:
            return await handler(request)
        return web.json_response({"errorMessage": reason, "errorType": "Forbidden"}, status=403)

    async def _next(self, _: web.Request) -> web.StreamResponse:
        self.extensions.is_open = False
        self._is_waiting = self._events.empty()
        self._settle_ready()
        event = await self._events.get()
        headers = {
            "Lambda-Runtime-Aws-Request-Id": event.request_id,
            "Lambda-Runtime-Deadline-Ms": str(int(event.deadline * 1000)),
            "Lambda-Runtime-Invoked-Function-Arn": function_arn(self._function),
            "Lambda-Runtime-Trace-Id": event.trace,
        }
        return web.Response(body=event.payload, headers=headers, content_type="application/json")

    async def _respond(self, request: web.Request) -> web.Response:
        payload = await request.read()
        if len(payload) > MAX_ANSWER_BYTES:
            message = f"Response payload size exceeded maximum allowed payload size ({MAX_ANSWER_BYTES} bytes)."
            kind = "Function.ResponseSizeTooLarge"
            self.broken = True  # the runtime client exits when an answer is refused
            self._settle(error_answer(kind, message, request.match_info["id"]))
            return web.json_response({"errorMessage": message, "errorType": kind}, status=413)
        self._settle(Answer(payload))
        return web.json_response({"status": "OK"}, status=202)

    async def _fail(self, request: web.Request) -> web.Response:
        payload = await request.read()
        self._settle(Answer(payload, _error_type(payload)))
        return web.json_response({"status": "OK"}, status=202)

    async def _fail_init(self, request: web.Request) -> web.Response:
        payload = await request.read()
        self._init_error = Answer(payload, _error_type(payload))
        return web.json_response({"status": "OK"}, status=202)

    def _settle(self, answer: Answer) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(answer)


def function_arn(name: str) -> str:
    """Return the ARN that a function would have."""
    return f"arn:aws:lambda:us-east-1:123456789012:function:{name}"


def _error_type(payload: bytes) -> str:
    try:
        error: Any = json.loads(payload)
        return str(error.get("errorType") or "Unhandled")
    except (ValueError, AttributeError):
        return "Unhandled"
