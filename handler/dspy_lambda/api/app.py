"""The FastAPI application: `POST /{Program}` for each program, and the shared GET routes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import aclosing
from functools import cache, partial
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from dspy_lambda.api.problems import RESPONSES, content
from dspy_lambda.api.shared import Endpoint, Stuck, create_shared_app, json_response
from dspy_lambda.config import Config
from dspy_lambda.environment import Environment
from dspy_lambda.errors import InvalidInput
from dspy_lambda.payload import MAX_BODY_BYTES, read_json
from dspy_lambda.programs.program import FailedProgram, Program


def create_app(environment: Environment) -> FastAPI:
    """Create an environment's application. Each request's scope needs `invocation`, `dispatcher` and `request_id`."""
    threads = environment.config.server.sync_worker_threads
    return _create(
        environment.config,
        environment.programs,
        environment.failed,
        partial(_calls, environment),
        lambda: Stuck(environment.dispatcher.overdue(), threads),
    )


def describe(config: Config, programs: Mapping[str, Program]) -> dict[str, Any]:
    """Create the OpenAPI document of an application with these programs, without being able to call them."""

    async def answer_nothing(_: Request) -> Response:
        raise NotImplementedError

    return _create(config, programs, {}, lambda _: answer_nothing, lambda: Stuck({}, 1)).openapi()


def _create(
    config: Config,
    programs: Mapping[str, Program],
    failed: Mapping[str, FailedProgram],
    endpoint_of: Callable[[Program | FailedProgram], Endpoint],
    stuck: Callable[[], Stuck],
) -> FastAPI:
    origins = config.server.cors_origins
    app = create_shared_app(config.app_id, config.description, origins, listed(programs, failed), stuck)
    for program in programs.values():
        _add_route(app, program, endpoint_of(program))
    for broken in failed.values():
        app.add_api_route(f"/{broken.name}", endpoint_of(broken), methods=["POST"], include_in_schema=False)
    app.openapi = cache(partial(_document, app.openapi, programs))  # type: ignore[method-assign]
    return app


def _add_route(app: FastAPI, program: Program, endpoint: Endpoint) -> None:
    """Add a program's route. Its schemas are only for the document; the endpoint reads the body itself.

    With a body parameter and a response model, FastAPI would validate everything twice and answer 422 where the
    contract says 400 or 415.
    """
    schemas = program.schemas
    app.add_api_route(
        f"/{program.name}",
        endpoint,
        methods=["POST"],
        operation_id=program.name,
        summary=program.name,
        description=_description(program),
        responses={200: json_response(schemas.outputs_name, "The program's outputs"), **RESPONSES},
        openapi_extra={"requestBody": {"required": True, "content": content("application/json", schemas.inputs_name)}},
    )


def _description(program: Program) -> str:
    text = type(program.instance).__doc__
    return inspect.cleandoc(text) if isinstance(text, str) else ""


def _document(generate: Callable[[], dict[str, Any]], programs: Mapping[str, Program]) -> dict[str, Any]:
    """Generate FastAPI's document, and add the schemas that its routes refer to."""
    from dspy_lambda.api.openapi import components

    return generate() | {"components": {"schemas": components(programs)}}


def listed(programs: Mapping[str, Program], failed: Mapping[str, FailedProgram]) -> list[dict[str, Any]]:
    """Return the entries of `/programs`."""
    ready = [_listed(p) | {"async": p.entry.is_async, "state": "ready"} for p in programs.values()]
    broken = [_listed(p) | {"async": None, "state": "failed", "error": p.error} for p in failed.values()]
    return sorted(ready + broken, key=lambda program: str(program["name"]))


def _listed(program: Program | FailedProgram) -> dict[str, Any]:
    return {"name": program.name, "model": program.model, "endpoint": f"/{program.name}"}


def _calls(environment: Environment, program: Program | FailedProgram) -> Endpoint:
    async def call_program(request: Request) -> Response:
        with request.scope["invocation"].call(program.name, program.model, position=0) as call:
            loaded = environment.served.require(program.name, program)
            body = await _read_body(request)
            try:
                inputs = read_json(body)
            except InvalidInput as error:
                if error.status != HTTPStatus.REQUEST_ENTITY_TOO_LARGE:  # otherwise it was not read to its end
                    call.inputs = _text_of(body)
                raise
            await request.scope["dispatcher"].run(loaded, inputs, call)
        return Response(call.outputs, media_type="application/json")

    return call_program


def _text_of(body: bytes) -> str | bytes:
    try:
        return body.decode()
    except UnicodeDecodeError:
        return body


async def _read_body(request: Request) -> bytes:
    """Read the body of a request, and stop after 6,000,000 bytes, which `read_json` refuses.

    Raises:
        InvalidInput: 415 for a media type other than JSON; a missing one counts as JSON.
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
    return bytes(body)
