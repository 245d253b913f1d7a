"""Normalizes answers: keeps only what two hosts of the same function must agree on."""

from __future__ import annotations

import http.client
import json
from typing import Any
from urllib.parse import urlsplit

from dspy_lambda_infra.local.events import Request, Response

# Specific to one invocation or host: ids, and a traceback's paths and line texts.
_OWN = {"request_id", "requestId", "stackTrace"}
_OWN_HEADERS = {"server", "date", "connection", "content-length"}


def ask(address: str, request: Request) -> Response:
    """Send a request over HTTP."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
    try:
        path = f"{request.path}?{request.query}" if request.query else request.path
        connection.request(request.method, path, request.body or None, dict(request.headers))
        answer = connection.getresponse()
        return Response(answer.status, answer.getheaders(), answer.read())
    finally:
        connection.close()


def of_http(answer: Response) -> tuple[int, dict[str, str], Any]:
    """Return an HTTP answer's status, headers and body."""
    headers = {name.lower(): value for name, value in answer.headers}
    return answer.status, _headers(headers), _body(answer.body.decode(), headers.get("content-type", ""))


def of_payload(payload: str | bytes) -> Any:
    """Return a function's own answer, or its error."""
    value = json.loads(payload)
    if isinstance(value, dict) and isinstance(value.get("headers"), dict):
        value["body"] = _body(value["body"], value["headers"].get("content-type", ""))
        value["headers"] = _headers(value["headers"])
    return _without_own(value)


def _headers(headers: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name not in _OWN_HEADERS}


def _body(text: str, media_type: str) -> Any:
    return _without_own(json.loads(text)) if text and media_type.endswith("json") else text


def _without_own(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_own(item) for key, item in value.items() if key not in _OWN}
    return [_without_own(item) for item in value] if isinstance(value, list) else value
