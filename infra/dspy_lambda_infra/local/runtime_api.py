"""The Runtime API: the HTTP server that one execution environment's runtime client talks to.

https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from dspy_lambda.quotas import MAX_ANSWER_BYTES
from dspy_lambda_infra.local.access import refuse_browser, refuse_host
from dspy_lambda_infra.local.answer import Answer, error_answer

_VERSION = "/2018-06-01/runtime"


class RuntimeApi:
    """Passes events to one runtime client, one at a time, and receives its answers.

    Args:
        function: the function's name.

    Attributes:
        ready: set while the client waits for an event. For Lambda, an invocation ends then, not with its answer.
        init_error: the client's error if its init failed, or None.
        broken: whether the client will exit because its answer was refused.
    """

    def __init__(self, function: str) -> None:
        self.ready = asyncio.Event()
        self.init_error: Answer | None = None
        self.broken = False
        self._function = function
        self._runner: web.AppRunner | None = None
        self._port = 0
        self._events: asyncio.Queue[tuple[str, bytes, float]] = asyncio.Queue(1)
        self._answer: asyncio.Future[Answer] | None = None

    async def start(self) -> str:
        """Listen on loopback and return host and port."""
        app = web.Application(client_max_size=64 * 2**20, middlewares=[self._refuse_others])
        app.router.add_get(f"{_VERSION}/invocation/next", self._next)
        app.router.add_post(_VERSION + "/invocation/{id}/response", self._respond)
        app.router.add_post(_VERSION + "/invocation/{id}/error", self._fail)
        app.router.add_post(f"{_VERSION}/init/error", self._fail_init)
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

    def send(self, request_id: str, payload: bytes, deadline: float) -> asyncio.Future[Answer]:
        """Send one event, with its deadline in seconds since the epoch; return the future answer."""
        self.ready.clear()
        self._answer = asyncio.get_running_loop().create_future()
        self._events.put_nowait((request_id, payload, deadline))
        return self._answer

    @web.middleware
    async def _refuse_others(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse requests that a web page could send: the next event goes to whoever requests it."""
        reason = refuse_host(request.headers.getall("Host", []), self._port) or refuse_browser(request.headers)
        if reason is None:
            return await handler(request)
        return web.json_response({"errorMessage": reason, "errorType": "Forbidden"}, status=403)

    async def _next(self, _: web.Request) -> web.StreamResponse:
        self.ready.set()
        request_id, payload, deadline = await self._events.get()
        headers = {
            "Lambda-Runtime-Aws-Request-Id": request_id,
            "Lambda-Runtime-Deadline-Ms": str(int(deadline * 1000)),
            "Lambda-Runtime-Invoked-Function-Arn": function_arn(self._function),
            "Lambda-Runtime-Trace-Id": f"Root=1-{int(time.time()):08x}-{request_id.replace('-', '')[:24]};Sampled=0",
        }
        return web.Response(body=payload, headers=headers, content_type="application/json")

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
        self.init_error = Answer(payload, _error_type(payload))
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
