"""Errors as `application/problem+json` (RFC 9457)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from dspy_lambda.errors import CallError, ProgramFailed

MEDIA_TYPE = "application/problem+json"


def problem(
    request: Request,
    status: int,
    title: str,
    detail: str,
    *,
    headers: Mapping[str, str] | None = None,
    **more: Any,
) -> Response:
    """A problem document with the Lambda request id, which finds its log record."""
    body = {"title": title, "status": status, "detail": detail, "request_id": request.scope["request_id"]}
    return Response(to_json(body | more), status, media_type=MEDIA_TYPE, headers=headers)


def call_error(request: Request, error: CallError) -> Response:
    """The answer to a call that failed."""
    more: dict[str, Any] = {} if error.errors is None else {"errors": error.errors}
    headers = None
    if error.status == HTTPStatus.TOO_MANY_REQUESTS:
        # At least a second: a client that reads 0 comes back at once.
        headers = {"Retry-After": str(max(1, math.ceil(error.retry_after or 1)))}
    return problem(request, error.status, error.title, error.detail, headers=headers, **more)


async def on_call_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, CallError)
    return call_error(request, error)


async def on_http_exception(request: Request, error: Exception) -> Response:
    """No such path (404) and wrong method (405, with Allow)."""
    assert isinstance(error, HTTPException)
    phrase = HTTPStatus(error.status_code).phrase
    return problem(request, error.status_code, phrase, f"{phrase}: {request.method}", headers=error.headers)


async def on_exception(request: Request, error: Exception) -> Response:
    """Nothing should come here; what does is logged by kind and place, and keeps its text to itself."""
    if "invocation" in request.scope:
        request.scope["invocation"].unforeseen(error)
    failed = ProgramFailed("An unforeseen error; its log record has this request id.")
    return call_error(request, failed)
