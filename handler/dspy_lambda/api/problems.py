"""Errors as `application/problem+json` (RFC 9457)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi.openapi.constants import REF_PREFIX
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from dspy_lambda.errors import CallError, ProgramFailed

MEDIA_TYPE = "application/problem+json"


def content(media_type: str, schema: str) -> dict[str, Any]:
    """A body as OpenAPI describes it, by the name of its schema among the document's components."""
    return {media_type: {"schema": {"$ref": f"{REF_PREFIX}{schema}"}}}


# What a program's route answers besides its outputs.
RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"description": description, "content": content(MEDIA_TYPE, "Problem")}
    for status, description in {
        400: "The body is not JSON",
        413: "The body is over 6,000,000 bytes",
        415: "The Content-Type is not JSON",
        422: "The inputs do not fit the program",
        429: "The model's provider, or this service, limits the rate: see Retry-After",
        500: "The program raised",
        502: "The model's provider failed or refused",
        503: "The program could not be loaded",
        504: "The deadline came before the answer",
    }.items()
}


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
