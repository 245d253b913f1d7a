"""CORS, except for function URLs, which add their own headers."""

from __future__ import annotations

from fastapi.middleware.cors import CORSMiddleware
from starlette.types import Receive, Scope, Send

from dspy_lambda.api.events import kind_of


class Cors(CORSMiddleware):
    """Leaves requests through a function URL alone: the URL adds its headers to what the function answers.

    Both would put Access-Control-Allow-Origin there, and browsers refuse two. Only the URL can answer a preflight
    request where it wants signatures, because browsers do not sign those. An HTTP API replaces what a function says,
    a REST API and a load balancer add nothing.
    https://docs.aws.amazon.com/lambda/latest/dg/urls-configuration.html#urls-cors
    https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-cors.html
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if kind_of(scope.get("aws.event", {})) == "url":
            await self.app(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)
