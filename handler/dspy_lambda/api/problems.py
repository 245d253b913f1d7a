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
    """Describe a body in OpenAPI by the name of its schema among the document's components."""
    return {media_type: {"schema": {"$ref": f"{REF_PREFIX}{schema}"}}}


# A program route's responses other than its outputs.
RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"description": description, "content": content(MEDIA_TYPE, "Problem")}
    for status, description in {
        400: "The body is not JSON",
        413: "The body is over 6,000,000 bytes",
        415: "The Content-Type is not JSON",
        422: "The inputs do not fit the program",
        429: "The model's provider or this service limited the rate; see Retry-After",
        500: "The program raised an exception",
        502: "The model's provider failed or refused the request",
        503: "The program could not be loaded",
        504: "The deadline passed before the answer was ready",
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
    """Create a problem document with the Lambda request id, by which to find its log record."""
    body = {"title": title, "status": status, "detail": detail, "request_id": request.scope["request_id"]}
    return Response(to_json(body | more), status, media_type=MEDIA_TYPE, headers=headers)


def call_error(request: Request, error: CallError) -> Response:
    """Create the response to a failed call."""
    more: dict[str, Any] = {} if error.errors is None else {"errors": error.errors}
    headers = None
    if error.status == HTTPStatus.TOO_MANY_REQUESTS:
        # At least a second: with 0 a client would retry at once.
        headers = {"Retry-After": str(max(1, math.ceil(error.retry_after or 1)))}
    return problem(request, error.status, error.title, error.detail, headers=headers, **more)


async def on_call_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, CallError)
    return call_error(request, error)


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Answer an unknown path (404) or a wrong method (405, with Allow)."""
    assert isinstance(error, HTTPException)
    phrase = HTTPStatus(error.status_code).phrase
    return problem(request, error.status_code, phrase, f"{phrase}: {request.method}", headers=error.headers)


async def on_exception(request: Request, error: Exception) -> Response:
    """Answer an unexpected exception without its text, and log its kind and place."""
    if "invocation" in request.scope:
        request.scope["invocation"].unexpected(error)
    failed = ProgramFailed("An unexpected error occurred; its log record has this request id.")
    return call_error(request, failed)
