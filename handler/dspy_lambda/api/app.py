"""The FastAPI application: `POST /{Program}` for each program, and the shared GET routes."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing
from functools import cache
from typing import Any

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from dspy_lambda.api.openapi import describe
from dspy_lambda.api.shared import Endpoint, Stuck, create_shared_app, route
from dspy_lambda.environment import Environment
from dspy_lambda.errors import InvalidInput
from dspy_lambda.payload import MAX_BODY_BYTES, read_json
from dspy_lambda.programs.program import FailedProgram, Program


def create_app(environment: Environment) -> FastAPI:
    """The application of an environment. Each request's scope must hold `invocation`, `dispatcher`, `request_id`."""
    config, programs = environment.config, environment.programs
    app = create_shared_app(
        config.app_id,
        config.description,
        config.server.cors_origins,
        listed(programs, environment.failed),
        cache(lambda: describe(config.app_id, config.description, programs)),
        lambda: Stuck(environment.dispatcher.overdue(), config.server.sync_worker_threads),
    )
    known: list[Program | FailedProgram] = [*programs.values(), *environment.failed.values()]
    for program in known:
        app.router.routes.append(route(f"/{program.name}", _calls(environment, program), "POST"))
    return app


def listed(programs: Mapping[str, Program], failed: Mapping[str, FailedProgram]) -> list[dict[str, Any]]:
    """What `/programs` says of each program."""
    ready = [_listed(p) | {"async": p.entry.is_async, "state": "ready"} for p in programs.values()]
    broken = [_listed(p) | {"async": None, "state": "failed", "error": p.error} for p in failed.values()]
    return sorted(ready + broken, key=lambda program: str(program["name"]))


def _listed(program: Program | FailedProgram) -> dict[str, Any]:
    return {"name": program.name, "model": program.model, "endpoint": f"/{program.name}"}


def _calls(environment: Environment, program: Program | FailedProgram) -> Endpoint:
    async def call_program(request: Request) -> Response:
        with request.scope["invocation"].call(program.name, program.model, position=0) as call:
            loaded = environment.served.require(program.name, program)
            inputs = await _read_body(request)
            await request.scope["dispatcher"].run(loaded, inputs, call)
        return Response(call.outputs, media_type="application/json")

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
