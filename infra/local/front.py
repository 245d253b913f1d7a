"""The HTTP front: requests in, events to functions, answers back; and the gateway's own answers where there is none."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass

from aiohttp import web

from infra.local.environment import Answer
from infra.local.events import EVENTS, MalformedAnswer, Request, Response, response
from infra.local.function import Function, RequestTooLarge, Throttled

# REST integrations end after 29 s, HTTP API's after 30 s; a function URL lasts as long as its function.
INTEGRATION_SECONDS = {"rest": 29.0, "http": 30.0}
SHARED_PATHS = ("/programs", "/health/live", "/health/ready", "/openapi.json", "/docs")
_MAX_BODY_BYTES = 10 * 2**20


@dataclass(frozen=True)
class _Own:
    """A gateway's own answers."""

    throttled: tuple[int, dict[str, object]]
    function_error: tuple[int, dict[str, object]]
    timed_out: tuple[int, dict[str, object]]
    not_found: tuple[int, dict[str, object]]


_OWN = {
    # The first and last as the template's GatewayResponses map them.
    "rest": _Own(
        (429, {"title": "Too many requests", "status": 429}),
        (502, {"message": "Internal server error"}),
        (504, {"message": "Endpoint request timed out"}),
        (404, {"title": "Not found", "status": 404}),
    ),
    "http": _Own(
        (503, {"message": "Service Unavailable"}),
        (500, {"message": "Internal Server Error"}),
        (503, {"message": "Service Unavailable"}),
        (404, {"message": "Not Found"}),
    ),
    "url": _Own(
        (429, {"Message": "Rate Exceeded."}),
        (502, {"Message": "Internal Server Error"}),
        (504, {"Message": "Gateway Timeout"}),
        (404, {"Message": "Not Found"}),
    ),
}


class Front:
    """Turns requests into events of one kind and answers with what the functions say.

    Args:
        kind: `rest` (v1), `http` (v2) or `url`.
        functions: by program name; each serves `/{Program}`.
        catalogue: the function that serves the shared GET paths.
    """

    def __init__(self, kind: str, functions: dict[str, Function], catalogue: Function) -> None:
        self._kind = kind
        self._functions = functions
        self._catalogue = catalogue

    async def start(self, port: int) -> str:
        """Listen on loopback; the address."""
        app = web.Application(client_max_size=_MAX_BODY_BYTES)
        app.router.add_route("*", "/{path:.*}", self._handle)
        # Bodies go on as they came: no gateway unpacks gzip.
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5, auto_decompress=False)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", port, backlog=1024).start()
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        """Stop listening."""
        await self._runner.cleanup()

    async def _handle(self, incoming: web.Request) -> web.StreamResponse:
        try:
            body = await incoming.read()
        except web.HTTPRequestEntityTooLarge:
            return _web(_json(413, {"message": "Request Too Long"}))
        request = Request(
            method=incoming.method,
            path=incoming.path,
            query=incoming.raw_path.partition("?")[2],
            headers=[(name.decode("latin-1"), value.decode("latin-1")) for name, value in incoming.raw_headers],
            body=body,
            source_ip=incoming.remote or "127.0.0.1",
        )
        return _web(await self.answer(request))

    async def answer(self, request: Request) -> Response:
        """The whole way of one request."""
        own = _OWN[self._kind]
        function = self._route(request)
        if function is None:
            return _json(*own.not_found)
        event = json.dumps(EVENTS[self._kind](request), ensure_ascii=False).encode(errors="replace")
        try:
            async with asyncio.timeout(INTEGRATION_SECONDS.get(self._kind)):
                answer: Answer = await function.invoke(event)
        except Throttled:
            return _json(*own.throttled, headers=[("Retry-After", "1")] if own.throttled[0] == 429 else [])
        except RequestTooLarge:
            return _json(413, {"message": "Request Too Long"})
        except TimeoutError:
            return _json(*own.timed_out)
        if answer.error is not None:
            return _json(*own.function_error)
        try:
            return response(self._kind, answer.payload)
        except MalformedAnswer:
            return _json(*own.function_error)

    def _route(self, request: Request) -> Function | None:
        if request.path in SHARED_PATHS and request.method in ("GET", "HEAD"):
            return self._catalogue
        return self._functions.get(request.path.removeprefix("/"))


def _json(status: int, body: dict[str, object], headers: list[tuple[str, str]] | None = None) -> Response:
    return Response(status, [("Content-Type", "application/json"), *(headers or [])], json.dumps(body).encode())


def _web(answer: Response) -> web.Response:
    out = web.Response(status=answer.status, body=answer.body, content_type="application/json")
    if any(name.lower() == "content-type" for name, _ in answer.headers):
        del out.headers["Content-Type"]
    for name, value in answer.headers:
        if name.lower() not in ("content-length", "transfer-encoding", "connection"):
            out.headers.add(name, value)
    return out
