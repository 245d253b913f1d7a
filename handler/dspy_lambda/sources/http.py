"""API Gateway REST (v1) and HTTP API (v2), function URL and ALB events, through Mangum to the FastAPI application."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from dspy_lambda.api.events import correlation_id_of, epoch_ms_of, kind_of
from dspy_lambda.environment import Environment
from dspy_lambda.sources.invocation import begin

if TYPE_CHECKING:
    from dspy_lambda.api.lambda_app import LambdaApp


def recognise(event: dict[str, Any]) -> bool:
    """Whether an event is an HTTP request."""
    return kind_of(event) is not None


@cache
def prepare(environment: Environment) -> LambdaApp:
    """Import FastAPI and Mangum, and make the environment's application: once."""
    from dspy_lambda.api.app import create_app
    from dspy_lambda.api.lambda_app import LambdaApp

    environment.use_loop()
    return LambdaApp(create_app(environment))


def handle(environment: Environment, event: dict[str, Any], context: Any) -> Any:
    """Answer a request.

    Raises:
        UnknownEvent: the event looks like a request but lacks a part that every real one has.
    """
    app = prepare(environment)
    kind = str(kind_of(event))
    correlation_id, epoch_ms = correlation_id_of(event), epoch_ms_of(event)
    with begin(environment, context, kind, correlation_id=correlation_id, epoch_ms=epoch_ms) as invocation:
        environment.use_loop()
        return app.answer(event, context, invocation=invocation)
