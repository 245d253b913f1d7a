"""What every application has: problem documents for errors, CORS, and the GET routes that all programs share.

Does not import DSPy, because the catalogue function serves only these routes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from dspy_lambda.api import problems
from dspy_lambda.errors import CallError

Endpoint = Callable[[Request], Awaitable[Response]]
MANIFEST = "catalogue.json"  # in the catalogue function's task root
SHARED_PATHS = ("/programs", "/health/live", "/health/ready", "/openapi.json", "/docs")


@dataclass(frozen=True)
class Stuck:
    """The number of threads that answered calls still hold, by program, and the number of all threads."""

    calls: dict[str, int]
    threads: int


def create_shared_app(
    title: str,
    description: str,
    cors_origins: list[str],
    programs: list[dict[str, Any]],
    stuck: Callable[[], Stuck] = lambda: Stuck({}, 1),
) -> FastAPI:
    """Create an application with the shared routes.

    Args:
        programs: the entries of `/programs`, whose states `/health/ready` reports.
        stuck: returns the stuck threads that `/health/ready` reports.
    """
    app = FastAPI(title=title, description=description, redirect_slashes=False)
    app.add_exception_handler(CallError, problems.on_call_error)
    app.add_exception_handler(HTTPException, problems.on_http_exception)
    app.add_exception_handler(Exception, problems.on_exception)
    if cors_origins:
        from dspy_lambda.api.cors import Cors

        app.add_middleware(Cors, allow_origins=cors_origins, allow_methods=["*"], allow_headers=["*"])
    _add_shared_routes(app, programs, stuck)
    return app


def json_response(schema: str, description: str = "OK") -> dict[str, Any]:
    """Describe a response in OpenAPI.

    Args:
        schema: its name among the document's components, which `api.openapi` creates when the document is requested.
    """
    return {"description": description, "content": problems.content("application/json", schema)}


def _add_shared_routes(app: FastAPI, programs: list[dict[str, Any]], stuck: Callable[[], Stuck]) -> None:
    failed = [program["name"] for program in programs if program["state"] == "failed"]

    @app.get(
        "/programs",
        operation_id="list-programs",
        summary="The programs, their models and states",
        responses={200: json_response("Programs")},
    )
    async def list_programs(_: Request) -> Response:
        return JSONResponse({"programs": programs})

    @app.get(
        "/health/live",
        operation_id="check-liveness",
        summary="Whether the process answers",
        responses={200: json_response("Liveness")},
    )
    async def check_liveness(_: Request) -> Response:
        return JSONResponse({"status": "alive"})

    @app.get(
        "/health/ready",
        operation_id="check-readiness",
        summary="Whether every program could be loaded",
        responses={200: json_response("Readiness"), 503: json_response("Readiness", "Not ready")},
    )
    async def check_readiness(_: Request) -> Response:
        held = stuck()
        also = {"stuck": held.calls} if held.calls else {}
        if failed or sum(held.calls.values()) >= held.threads:
            return JSONResponse({"status": "not_ready", "failed": failed, **also}, 503)
        return JSONResponse({"status": "ready", "programs": len(programs), **also})
