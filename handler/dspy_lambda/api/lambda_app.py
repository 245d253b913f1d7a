"""Wrap an ASGI application in Mangum for Lambda, once per environment."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, NamedTuple

from mangum import Mangum
from mangum.adapter import DEFAULT_TEXT_MIME_TYPES
from starlette.requests import Request

from dspy_lambda.api.events import kind_of, normalize_event, split_path
from dspy_lambda.api.problems import MEDIA_TYPE, call_error
from dspy_lambda.errors import ProgramFailed, UnknownEvent

# Mangum logs a line for each request; the call's record says more.
logging.getLogger("mangum").setLevel(logging.WARNING)
Scope = MutableMapping[str, Any]
Asgi = Callable[[Scope, Callable[..., Any], Callable[..., Awaitable[None]]], Awaitable[None]]


class _Handed(NamedTuple):
    """Passed to Mangum as the context, which it only stores in the scope, as `aws.context`."""

    context: Any
    scope: dict[str, Any]


class LambdaApp:
    """Sets each request's ids and root path, and makes Mangum send problem documents as text instead of base64.

    Args:
        app: the ASGI application. It runs on the event loop that is current when `answer` is called.
    """

    def __init__(self, app: Asgi) -> None:
        self._app = app
        self._mangum = Mangum(self._run, lifespan="off", text_mime_types=[*DEFAULT_TEXT_MIME_TYPES, MEDIA_TYPE])

    def answer(self, event: dict[str, Any], context: Any, **scope: Any) -> dict[str, Any]:
        """Answer one HTTP event in the format of its source; `scope` is added to the request's scope.

        Raises:
            UnknownEvent: The event looks like a request but lacks a part that every real one has.
        """
        handed: Any = _Handed(context, {**scope, "request_id": context.aws_request_id})
        try:
            return self._mangum(normalize_event(event), handed)
        except (KeyError, TypeError, AttributeError, ValueError, RuntimeError) as error:
            reason = f"{type(error).__name__} on {error}" if isinstance(error, KeyError) else type(error).__name__
            kind = kind_of(event)
            raise UnknownEvent(f"The event looks like a {kind} request but cannot be read as one: {reason}.") from None

    async def _run(self, scope: Scope, receive: Callable[..., Any], send: Callable[..., Awaitable[None]]) -> None:
        handed: _Handed = scope["aws.context"]
        scope.update(handed.scope)
        scope["aws.context"] = handed.context
        root, route = split_path(scope["aws.event"])
        # Starlette strips the root path from the path, so the path must include it.
        scope["root_path"], scope["path"] = root, root + route
        try:
            await self._app(scope, receive, send)
        except asyncio.CancelledError:
            # A program canceled all tasks that it found. Mangum would answer in plain text.
            failed = call_error(Request(scope), ProgramFailed("A program canceled the whole invocation."))
            await failed(scope, receive, send)
