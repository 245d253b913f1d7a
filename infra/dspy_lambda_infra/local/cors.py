"""CORS as function URLs do it: answers preflight requests itself, and adds headers to functions' answers.

https://docs.aws.amazon.com/lambda/latest/dg/urls-configuration.html#urls-cors
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dspy_lambda.api.events import cors_headers
from dspy_lambda_infra.local.events import Request, Response
from dspy_lambda_infra.template.functions import CORS_HEADERS


def is_preflight(request: Request) -> bool:
    """Whether a request is a browser's preflight request."""
    return request.method == "OPTIONS" and {"origin", "access-control-request-method"} <= request.grouped().keys()


def preflight(request: Request, origins: Sequence[str]) -> Response:
    """Return the URL's answer to a preflight request."""
    allowed = [("Access-Control-Allow-Methods", "*"), ("Access-Control-Allow-Headers", ",".join(CORS_HEADERS))]
    answer = allow(Response(200, [], b""), request, origins)
    return replace(answer, headers=[*answer.headers, *allowed]) if answer.headers else answer


def allow(answer: Response, request: Request, origins: Sequence[str]) -> Response:
    """Return an answer that pages from the configured origins can read."""
    origin = request.grouped().get("origin", [""])[0]
    return replace(answer, headers=[*answer.headers, *cors_headers(origin, origins).items()]) if origin else answer
