"""CORS, except for function URLs, which add their own headers."""

from __future__ import annotations

from fastapi.middleware.cors import CORSMiddleware
from starlette.types import Receive, Scope, Send

from dspy_lambda.api.events import kind_of


class Cors(CORSMiddleware):
    """Adds CORS headers, except to requests through a function URL, which adds its own headers.

    Otherwise a response would have two Access-Control-Allow-Origin headers, which browsers reject. If the URL requires
    signatures, only the URL can answer preflight requests, because browsers do not sign them. An HTTP API replaces a
    function's headers; a REST API and a load balancer add none.
    https://docs.aws.amazon.com/lambda/latest/dg/urls-configuration.html#urls-cors
    https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-cors.html
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if kind_of(scope.get("aws.event", {})) == "url":
            await self.app(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)
