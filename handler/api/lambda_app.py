"""The application as Lambda calls it: wrapped in Mangum, once per environment."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from functools import cache
from typing import Any

from mangum import Mangum
from mangum.adapter import DEFAULT_TEXT_MIME_TYPES
from starlette.requests import Request

from handler.api.app import create_app
from handler.api.problems import MEDIA_TYPE, call_error
from handler.environment import Environment
from handler.errors import ProgramFailed
from handler.telemetry import Invocation

Scope = MutableMapping[str, Any]


class LambdaApp:
    """Gives each request its invocation and its root path, and Mangum a media type that it would send as base64."""

    def __init__(self, environment: Environment) -> None:
        self._app = create_app(environment)
        self._invocation: Invocation | None = None  # an execution environment has one at a time
        environment.use_loop()
        self._mangum = Mangum(self._run, lifespan="off", text_mime_types=[*DEFAULT_TEXT_MIME_TYPES, MEDIA_TYPE])

    def answer(self, event: dict[str, Any], context: Any, invocation: Invocation) -> dict[str, Any]:
        """The answer to one HTTP event, in the shape of its source."""
        self._invocation = invocation
        return self._mangum(event, context)

    async def _run(self, scope: Scope, receive: Callable[..., Any], send: Callable[..., Awaitable[None]]) -> None:
        scope["invocation"] = self._invocation
        scope["root_path"] = _root_path(scope["aws.event"])
        # Starlette takes the root path off the path: it must stand there, as it does with an HTTP API's stage and
        # does not with a REST API's.
        if scope["aws.event"].get("version") != "2.0":
            scope["path"] = scope["root_path"] + scope["path"]
        try:
            await self._app(scope, receive, send)
        except asyncio.CancelledError:
            # A program that cancels all tasks that it finds. Mangum would answer in plain text.
            failed = call_error(Request(scope), ProgramFailed("A program cancelled the whole invocation."))
            await failed(scope, receive, send)


@cache
def lambda_app(environment: Environment) -> LambdaApp:
    """The environment's application, made at the first HTTP event (or at init, if HTTP is a source to expect)."""
    return LambdaApp(environment)


def _root_path(event: dict[str, Any]) -> str:
    """The stage's prefix. HTTP API has it in the path too, where the router strips it; REST only in the context."""
    request = event["requestContext"]
    stage = request.get("stage", "$default")
    if event.get("version") == "2.0":
        prefix = f"/{stage}"
        return prefix if stage != "$default" and event.get("rawPath", "").startswith(f"{prefix}/") else ""
    full, path = str(request.get("path", "")), str(event.get("path", ""))
    return full.removesuffix(path) if path and full.endswith(path) else ""
