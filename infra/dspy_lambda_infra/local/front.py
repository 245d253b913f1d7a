"""The HTTP front: turns requests into events, and functions' answers into HTTP; answers like the gateway otherwise."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace

from aiohttp import web

from dspy_lambda.api.shared import SHARED_PATHS
from dspy_lambda.quotas import INTEGRATION_SECONDS
from dspy_lambda_infra.local import access, cors
from dspy_lambda_infra.local.answer import Answer
from dspy_lambda_infra.local.events import EVENTS, STAGE, MalformedAnswer, Request, Response, response
from dspy_lambda_infra.local.function import Function, RequestTooLarge, Throttled
from dspy_lambda_infra.local.xray import continue_header
from dspy_lambda_infra.template.gateway import REFUSALS, RETRY_AFTER_SECONDS, Refusal

_MAX_BODY_BYTES = 10 * 2**20
_TRACE = "X-Amzn-Trace-Id"


@dataclass(frozen=True)
class _Own:
    """A gateway's own answers."""

    throttled: Refusal | tuple[int, dict[str, object]]
    function_error: Refusal | tuple[int, dict[str, object]]
    timed_out: Refusal | tuple[int, dict[str, object]]
    not_found: Refusal | tuple[int, dict[str, object]]
    too_large: Refusal | tuple[int, dict[str, object]] = (413, {"message": "Request Too Long"})


# The local front does not check signatures.
_NOT_FOUND = "No such path or method; GET /programs lists the programs"
_OWN = {
    "rest": _Own(
        REFUSALS["INTEGRATION_FAILURE"],
        (502, {"message": "Internal server error"}),
        REFUSALS["INTEGRATION_TIMEOUT"],
        replace(REFUSALS["MISSING_AUTHENTICATION_TOKEN"], detail=_NOT_FOUND),
        REFUSALS["REQUEST_TOO_LARGE"],
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
    """Turns requests into events of one kind and returns the functions' answers.

    Args:
        kind: `rest` (v1), `http` (v2) or `url`.
        functions: the functions by program name; each serves `/{Program}`.
        catalogue: the function that serves the shared GET paths.
        origins: the origins whose pages may call it, besides its own.
    """

    def __init__(
        self, kind: str, functions: dict[str, Function], catalogue: Function, origins: Sequence[str] = ()
    ) -> None:
        self._kind = kind
        self._origins = origins
        self._functions = functions
        self._catalogue = catalogue

    async def start(self, port: int) -> str:
        """Listen on loopback and return the address."""
        app = web.Application(client_max_size=_MAX_BODY_BYTES)
        app.router.add_route("*", "/{path:.*}", self._handle)
        # Bodies are forwarded unchanged: no gateway decompresses gzip.
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5, auto_decompress=False)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", port, backlog=1024).start()
        self._port: int = self._runner.addresses[0][1]
        return f"http://127.0.0.1:{self._port}"

    async def stop(self) -> None:
        """Stop listening."""
        await self._runner.cleanup()

    async def _handle(self, incoming: web.Request) -> web.StreamResponse:
        if refused := self._refuse_page(incoming):
            return _web(_json(403, {"message": refused}))
        try:
            body = await incoming.read()
        except web.HTTPRequestEntityTooLarge:
            return _web(_refuse(_OWN[self._kind].too_large))
        request = Request(
            method=incoming.method,
            path=incoming.path,
            query=incoming.raw_path.partition("?")[2],
            headers=[*_received(incoming), *_forwarded(incoming)],
            body=body,
            source_ip=incoming.remote or "127.0.0.1",
        )
        return _web(await self.answer(request))

    def _refuse_page(self, incoming: web.Request) -> str | None:
        hosts, origins = (incoming.headers.getall(name, []) for name in ("Host", "Origin"))
        return access.refuse_host(hosts, self._port) or access.refuse_origin(
            incoming.method, origins, self._port, self._origins
        )

    async def answer(self, request: Request) -> Response:
        """Handle one request; a function URL does its own CORS if the config names origins."""
        if self._kind != "url" or not self._origins:
            return await self._answer(request)
        if cors.is_preflight(request):
            return cors.preflight(request, self._origins)
        return cors.allow(await self._answer(request), request, self._origins)

    async def _answer(self, request: Request) -> Response:
        own = _OWN[self._kind]
        request = self._without_stage(request)
        function = self._route(request)
        if function is None:
            return _refuse(own.not_found)
        event = json.dumps(EVENTS[self._kind](request), ensure_ascii=False).encode(errors="replace")
        try:
            async with asyncio.timeout(INTEGRATION_SECONDS.get(self._kind)):
                answer: Answer = await function.invoke(event, request.grouped().get(_TRACE.lower(), [None])[-1])
        except Throttled:
            return _refuse(own.throttled)
        except RequestTooLarge:
            return _refuse(own.too_large)
        except TimeoutError:
            return _refuse(own.timed_out)
        if answer.error is not None:
            return _refuse(own.function_error)
        try:
            return response(self._kind, answer.payload)
        except MalformedAnswer:
            return _refuse(own.function_error)

    def _without_stage(self, request: Request) -> Request:
        """Strip the stage, with which a REST API's paths begin on AWS; here it is optional."""
        rest, stage = self._kind == "rest", f"/{STAGE}/"
        if not (rest and request.path.startswith(stage)):
            return request
        return replace(request, path=request.path.removeprefix(f"/{STAGE}"))

    def _route(self, request: Request) -> Function | None:
        if request.path in SHARED_PATHS:
            return self._catalogue if request.method == "GET" else None
        return self._functions.get(request.path.removeprefix("/"))


def _received(incoming: web.Request) -> list[tuple[str, str]]:
    """Return a request's own headers, except the one that a gateway replaces."""
    headers = ((name.decode("latin-1"), value.decode("latin-1")) for name, value in incoming.raw_headers)
    return [(name, value) for name, value in headers if name.lower() != _TRACE.lower()]


def _forwarded(incoming: web.Request) -> list[tuple[str, str]]:
    """Return the headers that a gateway adds to a request."""
    port = incoming.transport.get_extra_info("sockname")[1] if incoming.transport else 0
    return [
        ("X-Forwarded-For", incoming.remote or "127.0.0.1"),
        ("X-Forwarded-Port", str(port)),
        ("X-Forwarded-Proto", "http"),
        (_TRACE, continue_header(incoming.headers.get(_TRACE))),
    ]


def _refuse(refusal: Refusal | tuple[int, dict[str, object]]) -> Response:
    if isinstance(refusal, Refusal):
        seconds = refusal.retry_after_seconds
        headers = [("Retry-After", str(seconds))] if seconds else []
        return _json(refusal.status, refusal.body(str(uuid.uuid4())), headers)
    status, body = refusal
    return _json(status, body, [("Retry-After", str(RETRY_AFTER_SECONDS))] if status == 429 else [])


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
