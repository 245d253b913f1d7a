"""An application as Lambda calls it: wrapped in Mangum, once per environment."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, NamedTuple

from mangum import Mangum
from mangum.adapter import DEFAULT_TEXT_MIME_TYPES
from starlette.requests import Request

from dspy_lambda.api.events import kind_of, split_path, tidy
from dspy_lambda.api.problems import MEDIA_TYPE, call_error
from dspy_lambda.errors import ProgramFailed, UnknownEvent

# It logs a line for each request; the call's record has more.
logging.getLogger("mangum").setLevel(logging.WARNING)
Scope = MutableMapping[str, Any]
Asgi = Callable[[Scope, Callable[..., Any], Callable[..., Awaitable[None]]], Awaitable[None]]


class _Handed(NamedTuple):
    """What Mangum is handed as the context, which it only puts into the scope, as `aws.context`."""

    context: Any
    scope: dict[str, Any]


class LambdaApp:
    """Gives each request its ids and its root path, and Mangum a media type that it would send as base64.

    Args:
        app: the ASGI application. It runs on the event loop that is current when `answer` is called.
    """

    def __init__(self, app: Asgi) -> None:
        self._app = app
        self._mangum = Mangum(self._run, lifespan="off", text_mime_types=[*DEFAULT_TEXT_MIME_TYPES, MEDIA_TYPE])

    def answer(self, event: dict[str, Any], context: Any, **scope: Any) -> dict[str, Any]:
        """The answer to one HTTP event, in the shape of its source; `scope` goes into the request's.

        Raises:
            UnknownEvent: the event looks like a request but lacks a part that every real one has.
        """
        handed: Any = _Handed(context, {**scope, "request_id": context.aws_request_id})
        try:
            return self._mangum(tidy(event), handed)
        except (KeyError, TypeError, AttributeError, ValueError, RuntimeError) as error:
            reason = f"{type(error).__name__} on {error}" if isinstance(error, KeyError) else type(error).__name__
            kind = kind_of(event)
            raise UnknownEvent(f"The event looks like a {kind} request but cannot be read as one: {reason}.") from None

    async def _run(self, scope: Scope, receive: Callable[..., Any], send: Callable[..., Awaitable[None]]) -> None:
        handed: _Handed = scope["aws.context"]
        scope.update(handed.scope)
        scope["aws.context"] = handed.context
        root, route = split_path(scope["aws.event"])
        # Starlette takes the root path off the path: it must stand there, too.
        scope["root_path"], scope["path"] = root, root + route
        try:
            await self._app(scope, receive, send)
        except asyncio.CancelledError:
            # A program that cancels all tasks that it finds. Mangum would answer in plain text.
            failed = call_error(Request(scope), ProgramFailed("A program cancelled the whole invocation."))
            await failed(scope, receive, send)
