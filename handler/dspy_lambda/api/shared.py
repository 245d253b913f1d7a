"""What every application has: errors as problems, CORS, and the GET routes that all programs share.

Without DSPy: the catalogue function serves these routes alone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from dspy_lambda.api import problems
from dspy_lambda.errors import CallError

Endpoint = Callable[[Request], Awaitable[Response]]
MANIFEST = "catalogue.json"  # of the catalogue function, in its task root
SHARED_PATHS = ("/programs", "/health/live", "/health/ready", "/openapi.json", "/docs")


@dataclass(frozen=True)
class Stuck:
    """Threads that calls hold although they have been answered: by program; and how many threads there are."""

    calls: dict[str, int]
    threads: int


def create_shared_app(
    title: str,
    description: str,
    cors_origins: list[str],
    programs: list[dict[str, Any]],
    openapi: Callable[[], dict[str, Any]],
    stuck: Callable[[], Stuck] = lambda: Stuck({}, 1),
) -> FastAPI:
    """An application with the shared routes.

    Args:
        programs: what `/programs` lists, `/health/ready` is told by.
        openapi: called for `/openapi.json`, and only then.
        stuck: the threads that `/health/ready` tells of.
    """
    app = FastAPI(title=title, description=description, redirect_slashes=False)
    app.add_exception_handler(CallError, problems.on_call_error)
    app.add_exception_handler(HTTPException, problems.on_http_exception)
    app.add_exception_handler(Exception, problems.on_exception)
    if cors_origins:
        from dspy_lambda.api.cors import Cors

        app.add_middleware(Cors, allow_origins=cors_origins, allow_methods=["*"], allow_headers=["*"])
    app.router.routes.append(route("/programs", _programs(programs), "GET"))
    app.router.routes.append(route("/health/live", _live, "GET"))
    app.router.routes.append(route("/health/ready", _ready(programs, stuck), "GET"))
    app.openapi = openapi  # type: ignore[method-assign]
    return app


def route(path: str, endpoint: Endpoint, method: str) -> APIRoute:
    """A route that FastAPI's own schema leaves out."""
    return APIRoute(path, endpoint, methods=[method], include_in_schema=False)


def _programs(programs: list[dict[str, Any]]) -> Endpoint:
    async def list_programs(_: Request) -> Response:
        return JSONResponse({"programs": programs})

    return list_programs


async def _live(_: Request) -> Response:
    return JSONResponse({"status": "alive"})


def _ready(programs: list[dict[str, Any]], stuck: Callable[[], Stuck]) -> Endpoint:
    failed = [program["name"] for program in programs if program["state"] == "failed"]

    async def ready(_: Request) -> Response:
        held = stuck()
        also = {"stuck": held.calls} if held.calls else {}
        if failed or sum(held.calls.values()) >= held.threads:
            return JSONResponse({"status": "not_ready", "failed": failed, **also}, 503)
        return JSONResponse({"status": "ready", "programs": len(programs), **also})

    return ready
