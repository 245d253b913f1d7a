"""The FastAPI application: `POST /{Program}` for each program, and the shared GET routes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from handler.api import problems
from handler.api.openapi import describe
from handler.environment import Environment
from handler.errors import CallError, InvalidInput
from handler.payload import MAX_BODY_BYTES, read_json
from handler.programs import FailedProgram, Program
from handler.sources.direct import require

Endpoint = Callable[[Request], Awaitable[Response]]


def create_app(environment: Environment) -> FastAPI:
    """The application of an environment. Each request's scope must hold its Invocation under `invocation`."""
    app = FastAPI(title=environment.config.app_id, description=environment.config.description, redirect_slashes=False)
    app.add_exception_handler(CallError, problems.on_call_error)
    app.add_exception_handler(HTTPException, problems.on_http_exception)
    app.add_exception_handler(Exception, problems.on_exception)
    if origins := environment.config.server.cors_origins:
        from fastapi.middleware.cors import CORSMiddleware

        app.add_middleware(CORSMiddleware, allow_origins=origins, allow_methods=["*"], allow_headers=["*"])
    programs: list[Program | FailedProgram] = [*environment.programs.values(), *environment.failed.values()]
    for program in programs:
        app.router.routes.append(_route(f"/{program.name}", _calls(environment, program), "POST"))
    app.router.routes.append(_route("/programs", _programs(environment), "GET"))
    app.router.routes.append(_route("/health/live", _live, "GET"))
    app.router.routes.append(_route("/health/ready", _ready(environment), "GET"))
    app.openapi = lambda: describe(app, environment)  # type: ignore[method-assign]
    return app


def _route(path: str, endpoint: Endpoint, method: str) -> APIRoute:
    return APIRoute(path, endpoint, methods=[method], include_in_schema=False)


def _calls(environment: Environment, program: Program | FailedProgram) -> Endpoint:
    async def call_program(request: Request) -> Response:
        with request.scope["invocation"].call(program.name, program.model) as call:
            loaded = require(environment, program.name, program)
            inputs = await _read_body(request)
            outputs = await environment.dispatcher.run(loaded, inputs, call)
            return Response(to_json(outputs), media_type="application/json")

    return call_program


async def _read_body(request: Request) -> Any:
    """The JSON of a request.

    Raises:
        InvalidInput: 415 for another media type (none at all counts as JSON), 413 over 6,000,000 bytes.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type and media_type != "application/json" and not media_type.endswith("+json"):
        raise InvalidInput("The Content-Type must be application/json.", status=415)
    body = bytearray()
    async with aclosing(request.stream()) as chunks:
        async for chunk in chunks:
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                break
    return read_json(bytes(body))


def _programs(environment: Environment) -> Endpoint:
    async def list_programs(_: Request) -> Response:
        listed = [
            {"name": p.name, "model": p.model, "endpoint": f"/{p.name}", "async": p.entry.is_async, "state": "ready"}
            for p in environment.programs.values()
        ] + [
            {
                "name": f.name,
                "model": f.model,
                "endpoint": f"/{f.name}",
                "async": None,
                "state": "failed",
                "error": f.error,
            }
            for f in environment.failed.values()
        ]
        return JSONResponse({"programs": sorted(listed, key=lambda program: str(program["name"]))})

    return list_programs


async def _live(_: Request) -> Response:
    return JSONResponse({"status": "alive"})


def _ready(environment: Environment) -> Endpoint:
    async def ready(_: Request) -> Response:
        if environment.failed:
            return JSONResponse({"status": "not_ready", "failed": sorted(environment.failed)}, 503)
        return JSONResponse({"status": "ready", "programs": len(environment.programs)})

    return ready
