"""Converts HTTP requests to the events of API Gateway, function URLs and load balancers, and answers back to HTTP.

Shapes: https://docs.aws.amazon.com/apigateway/latest/developerguide/set-up-lambda-proxy-integrations.html (v1),
https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html (v2),
https://docs.aws.amazon.com/lambda/latest/dg/urls-invocation.html (function URL),
https://docs.aws.amazon.com/elasticloadbalancing/latest/application/lambda-functions.html (ALB).
"""

from __future__ import annotations

import base64
import json
import re
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from dspy_lambda.api.shared import SHARED_PATHS

ACCOUNT = "123456789012"
STAGE = "prod"
_TEXT = ("text/", "application/json", "application/javascript", "application/xml")


@dataclass(frozen=True)
class Request:
    """One HTTP request as received."""

    method: str
    path: str
    query: str = ""
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    source_ip: str = "127.0.0.1"

    def grouped(self) -> dict[str, list[str]]:
        """Return header values by lower-case name."""
        grouped: dict[str, list[str]] = {}
        for name, value in self.headers:
            grouped.setdefault(name.lower(), []).append(value)
        return grouped


@dataclass(frozen=True)
class Response:
    """One HTTP answer."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


class MalformedAnswer(Exception):
    """The gateway cannot convert the function's answer to HTTP."""


def rest_event(request: Request, resource: str | None = None) -> dict[str, Any]:
    """Return a REST API (v1) proxy event."""
    headers = request.grouped()
    query = _parameters(request.query)
    resource = resource or request.path
    return {
        "resource": resource,
        "path": request.path,
        "httpMethod": request.method,
        "headers": {name: values[-1] for name, values in headers.items()},
        "multiValueHeaders": headers,
        "queryStringParameters": {name: values[-1] for name, values in query.items()} or None,
        "multiValueQueryStringParameters": query or None,
        "pathParameters": None,
        "stageVariables": None,
        "requestContext": {
            "accountId": ACCOUNT,
            "apiId": "local",
            "domainName": "local.execute-api.us-east-1.amazonaws.com",
            "httpMethod": request.method,
            "identity": {"sourceIp": request.source_ip, "userAgent": headers.get("user-agent", [None])[-1]},
            "path": f"/{STAGE}{request.path}",
            "protocol": "HTTP/1.1",
            "requestId": str(uuid.uuid4()),
            "requestTime": time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime()),
            "requestTimeEpoch": int(time.time() * 1000),
            "resourcePath": resource,
            "stage": STAGE,
        },
        "body": request.body.decode(errors="replace") or None,
        "isBase64Encoded": False,
    }


def _parameters(query: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        found.setdefault(name, []).append(value)
    return found


def http_event(request: Request, stage: str = "$default") -> dict[str, Any]:
    """Return an HTTP API (v2) event; a named stage is part of the path, as on AWS."""
    path = request.path if stage == "$default" else f"/{stage}{request.path}"
    event = _version_2(request, path, "local.execute-api.us-east-1.amazonaws.com", stage)
    method = "GET" if request.path in SHARED_PATHS else "ANY"
    event["routeKey"] = event["requestContext"]["routeKey"] = f"{method} {request.path}"
    return event


def url_event(request: Request) -> dict[str, Any]:
    """Return a function URL event."""
    return _version_2(request, request.path, "local.lambda-url.us-east-1.on.aws", "$default")


def _version_2(request: Request, path: str, domain: str, stage: str) -> dict[str, Any]:
    headers = {name: ",".join(values) for name, values in request.grouped().items()}
    cookies = [cookie.strip() for cookie in headers.pop("cookie", "").split(";") if cookie.strip()]
    text = not headers.get("content-type") or headers["content-type"].startswith(_TEXT)
    event: dict[str, Any] = {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": request.query,
        "headers": headers,
        "requestContext": {
            "accountId": ACCOUNT,
            "apiId": "local",
            "domainName": domain,
            "domainPrefix": "local",
            "http": {
                "method": request.method,
                "path": path,
                "protocol": "HTTP/1.1",
                "sourceIp": request.source_ip,
                "userAgent": headers.get("user-agent", ""),
            },
            "requestId": str(uuid.uuid4()),
            "routeKey": "$default",
            "stage": stage,
            "time": time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime()),
            "timeEpoch": int(time.time() * 1000),
        },
        "isBase64Encoded": False,
    }
    if cookies:
        event["cookies"] = cookies
    if parameters := _parameters(request.query):
        event["queryStringParameters"] = {name: ",".join(values) for name, values in parameters.items()}
    if request.body:
        event["body"], event["isBase64Encoded"] = _body(request.body, text)
    return event


def alb_event(request: Request) -> dict[str, Any]:
    """Return an Application Load Balancer event, without multi-value headers (the target group's default)."""
    body, encoded = _body(request.body, True)
    headers = {name: values[-1] for name, values in request.grouped().items()}
    target = f"arn:aws:elasticloadbalancing:us-east-1:{ACCOUNT}:targetgroup/local/0123456789abcdef"
    return {
        "requestContext": {"elb": {"targetGroupArn": target}},
        "httpMethod": request.method,
        "path": request.path,
        "queryStringParameters": dict(parse_qsl(request.query, keep_blank_values=True)),
        "headers": {"x-forwarded-for": request.source_ip, "x-amzn-trace-id": f"Root=1-{uuid.uuid4().hex}", **headers},
        "body": body,
        "isBase64Encoded": encoded,
    }


def _body(body: bytes, text: bool) -> tuple[str, bool]:
    if text:
        try:
            return body.decode(), False
        except UnicodeDecodeError:
            pass
    return base64.b64encode(body).decode(), True


EVENTS: dict[str, Callable[[Request], dict[str, Any]]] = {
    "rest": rest_event,
    "http": http_event,
    "url": url_event,
    "alb": alb_event,
}


def response(kind: str, payload: bytes) -> Response:
    """Convert a function's answer to HTTP, by the rules of the kind of gateway.

    Raises:
        MalformedAnswer: the answer is not in the gateway's format.
    """
    answer = _parse(kind, payload)
    repeated, headers = answer.get("multiValueHeaders") or {}, answer.get("headers") or {}
    body = answer.get("body") or ""
    if not isinstance(repeated, dict) or not isinstance(headers, dict) or not isinstance(body, str):
        raise MalformedAnswer("headers or body of a wrong type")
    # "If the same key is in both, API Gateway returns only the values from multiValueHeaders."
    pairs = [(name, _text(value)) for name, value in headers.items() if name not in repeated]
    pairs += [(name, _text(value)) for name, values in repeated.items() for value in values]
    pairs += [("set-cookie", cookie) for cookie in answer.get("cookies") or []]
    if any(character in text for pair in pairs for text in pair for character in "\r\n\0"):
        raise MalformedAnswer("a header with a line break")
    data = body.encode()
    # A REST API decodes base64 only for its binary media types; none are configured.
    if answer.get("isBase64Encoded") and kind != "rest":
        data = base64.b64decode(data)
    return Response(int(answer["statusCode"]), pairs, data)


def _parse(kind: str, payload: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(payload)
    except ValueError:
        raise MalformedAnswer("not JSON") from None
    if isinstance(answer, dict) and "statusCode" in answer:
        if re.fullmatch("[2-5][0-9][0-9]", str(answer["statusCode"])):
            return answer
        raise MalformedAnswer("not a status code")
    if kind in ("http", "url"):
        # Format 2.0: an answer without a status code is the body itself.
        return {"statusCode": 200, "headers": {"content-type": "application/json"}, "body": json.dumps(answer)}
    raise MalformedAnswer("no statusCode")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
