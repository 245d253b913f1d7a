"""Pass API Gateway REST (v1), HTTP API (v2), function URL and ALB events through Mangum to the FastAPI application."""

from __future__ import annotations

import json
import math
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from dspy_lambda.api.events import correlation_id_of, cors_headers, epoch_ms_of, kind_of
from dspy_lambda.call import UNKNOWN
from dspy_lambda.environment import Environment
from dspy_lambda.errors import CallError, UnknownEvent, cut_off
from dspy_lambda.invocation import Invocation, open_invocation
from dspy_lambda.payload import AnswerLimit
from dspy_lambda.quotas import MAX_ANSWER_BYTES
from dspy_lambda.runner import Runner

if TYPE_CHECKING:
    from dspy_lambda.api.lambda_app import LambdaApp

# "The maximum size of the response JSON that the Lambda function can send is 1 MB."
# https://docs.aws.amazon.com/elasticloadbalancing/latest/application/lambda-functions.html
_MAX_ALB_BYTES = 1_000_000
_AROUND_BODY = 16_000  # status and headers
# What `build` leaves out of an artifact without a route: an event comes all the same where a gateway was added by hand.
_ONLY_WITH_HTTP = ("fastapi", "mangum")
_NO_ROUTE = "This function has no HTTP route. Set `http: true` for its program under `lambda`, and build it again."
_MEDIA_TYPE = "application/problem+json"


def prepare(environment: Environment) -> None:
    """Import FastAPI and Mangum, and create the application."""
    environment.runner.run(lambda: environment.part(_make_app))


def begin(environment: Environment, event: dict[str, Any], context: Any) -> Invocation:
    """Create the event's invocation."""
    kind = str(kind_of(event))
    limit = _MAX_ALB_BYTES if kind == "alb" else MAX_ANSWER_BYTES
    return open_invocation(
        environment,
        context,
        kind,
        correlation_id=correlation_id_of(event),
        epoch_ms=epoch_ms_of(event),
        answer_limit=AnswerLimit(limit - _AROUND_BODY, as_text=True),
    )


def handle(
    environment: Environment, runner: Runner, event: dict[str, Any], context: Any, invocation: Invocation
) -> Any:
    """Answer a request.

    Raises:
        UnknownEvent: The event looks like a request but lacks a part that every real one has, or the function was
            built without a route.
    """
    runner.use_loop()
    app = environment.part(_make_app)
    return app.answer(event, context, invocation=invocation, dispatcher=runner.dispatcher)


def _make_app(environment: Environment) -> LambdaApp:
    try:
        from dspy_lambda.api.app import create_app
        from dspy_lambda.api.lambda_app import LambdaApp
    except ModuleNotFoundError as error:
        if error.name not in _ONLY_WITH_HTTP:
            raise
        raise UnknownEvent(_NO_ROUTE) from None
    return LambdaApp(create_app(environment))


def late(environment: Environment, event: dict[str, Any], invocation: Invocation) -> dict[str, Any]:
    """Answer at the deadline, without Mangum, while the request's own thread is blocked."""
    only = environment.served.only()
    call = invocation.call(only.name if only else UNKNOWN, only.model if only else None, position=0)
    call.fail(cut_off())
    cors = _cors(environment.config.server.cors_origins, event)
    if call.error is None:
        return _response(event, HTTPStatus.OK, "application/json", call.outputs.decode(), cors)
    return _problem(event, call.error, invocation.request_id, cors)


def _cors(allowed: list[str], event: dict[str, Any]) -> dict[str, str]:
    """Return the headers that the application's middleware, `api.cors`, adds to other answers."""
    if not allowed or kind_of(event) == "url":
        return {}
    origins = [
        value[-1] if isinstance(value, list) and value else value
        for part in ("headers", "multiValueHeaders")
        for name, value in (event.get(part) or {}).items()
        if name.lower() == "origin"
    ]
    return cors_headers(origins[0], allowed) if origins else {}


def _problem(event: dict[str, Any], error: CallError, request_id: str, headers: dict[str, str]) -> dict[str, Any]:
    body: dict[str, Any] = {"title": error.title, "status": error.status, "detail": error.detail}
    body["request_id"] = request_id
    if error.errors is not None:
        body["errors"] = error.errors
    if error.status == HTTPStatus.TOO_MANY_REQUESTS:
        headers = headers | {"retry-after": str(max(1, math.ceil(error.retry_after or 1)))}
    return _response(event, error.status, _MEDIA_TYPE, json.dumps(body), headers)


def _response(
    event: dict[str, Any], status: int, media_type: str, body: str, headers: dict[str, str] | None = None
) -> dict[str, Any]:
    """Build a response that every kind of gateway accepts; an ALB with multi-value headers requires those."""
    sent = {"content-type": media_type, **(headers or {})}
    answer: dict[str, Any] = {"statusCode": int(status), "body": body, "isBase64Encoded": False}
    if "elb" in event["requestContext"] and "multiValueHeaders" in event:
        return answer | {"multiValueHeaders": {name: [value] for name, value in sent.items()}}
    return answer | {"headers": sent}
