"""Read HTTP events: their kind, their ids, and a normalized form in which a client's mistakes are corrected."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Collection
from typing import Any
from urllib.parse import unquote

_HOST = re.compile(r"[^:\s]+(:\d{1,5})?")
_PORT = re.compile(r"\d{1,5}")
_METHOD = re.compile(r"[!-~]+")
_PATH_PARAMETER = re.compile(r"\{([^{}+]+)\+?\}")
_LAST_EPOCH_MS = 1e15  # the year 33658; an integer of 400 digits does not fit in a float


def kind_of(event: dict[str, Any]) -> str | None:
    """Return `rest`, `http`, `url` or `alb`; None for an event that is not an HTTP request."""
    request = event.get("requestContext")
    if not isinstance(request, dict):
        return None
    if "elb" in request:
        return "alb"
    if event.get("version") == "2.0" and isinstance(request.get("http"), dict):
        domain = request.get("domainName")
        return "url" if isinstance(domain, str) and ".lambda-url." in domain else "http"
    return "rest" if "httpMethod" in event and "resource" in event else None


def epoch_ms_of(event: dict[str, Any]) -> float | None:
    """Return when API Gateway received the request: `requestTimeEpoch` (v1) or `timeEpoch` (v2)."""
    request = event["requestContext"]
    epoch = request.get("requestTimeEpoch", request.get("timeEpoch"))
    return epoch if isinstance(epoch, int | float) and 0 < epoch < _LAST_EPOCH_MS else None


def correlation_id_of(event: dict[str, Any]) -> str | None:
    """Return API Gateway's request id, or an ALB's trace header."""
    found = event["requestContext"].get("requestId")
    if found is None:
        headers = event.get("headers")
        found = headers.get("x-amzn-trace-id") if isinstance(headers, dict) else None
    return found if isinstance(found, str) else None


def cors_headers(origin: Any, allowed: Collection[str]) -> dict[str, str]:
    """Return the CORS headers of an answer that the application's middleware never sees.

    Repeats Starlette's rule, because a late answer must not import anything.
    """
    if "*" in allowed:
        return {"access-control-allow-origin": "*"}
    return {"access-control-allow-origin": origin, "vary": "Origin"} if origin in allowed else {}


def split_path(event: dict[str, Any]) -> tuple[str, str]:
    """Split the path of a request into what precedes the route (a stage, a base path) and the route.

    Only `resource` (v1) and `routeKey` (v2) hold the route itself: behind a custom domain, `path` and `rawPath` include
    its base path.
    """
    request, route = event["requestContext"], _filled(event.get("routeKey", event.get("resource")), event)
    if event.get("version") == "2.0" and "elb" not in request:
        path = full = request["http"]["path"] or ""
        stage = f"/{request.get('stage', '$default')}"
        route = route or (path.removeprefix(stage) if path.startswith(f"{stage}/") else path)
    else:
        path = event["path"] or ""
        full, route = request.get("path") or path, route or path
    root, route = (full.removesuffix(route), route) if full.endswith(route) else ("", path)
    return unquote(root), unquote(route) or "/"


def _filled(route: Any, event: dict[str, Any]) -> str:
    """A route such as `POST /{proxy+}` as a path, its parameters filled in; empty where it says nothing of the path."""
    if not isinstance(route, str):
        return ""
    parameters = event.get("pathParameters")
    known = parameters if isinstance(parameters, dict) else {}
    path = _PATH_PARAMETER.sub(lambda found: str(known.get(found[1], found[0])), route[route.find("/") :])
    return path if path.startswith("/") else ""


def normalize_event(event: dict[str, Any]) -> dict[str, Any]:
    """Correct what a client can get wrong in an event, so that a bad request is answered with 400 and does not raise.

    Mangum treats only some nulls as missing keys, reads `Host: a:b:c` as a host and a port, and raises if a body is not
    base64.

    Raises:
        TypeError: A part that clients cannot influence is not text, as it is in every real request.
    """
    event = {key: value for key, value in event.items() if value is not None}
    _check_request_line(event)
    for name in ("headers", "multiValueHeaders"):
        if name in event:
            event[name] = {k: v for k, v in event[name].items() if v is not None and _is_valid_header(k, v)}
    if "headers" not in event and "multiValueHeaders" not in event:
        event["headers"] = {}
    body = event.get("body", "")
    if not isinstance(body, str) or (event.get("isBase64Encoded") and not _is_base64(body)):
        event["body"], event["isBase64Encoded"] = "not base64", False
    return event


def _check_request_line(event: dict[str, Any]) -> None:
    """Check the types of what the application reads unchecked: there, an error would count as the program's."""
    request = event["requestContext"]
    line = request["http"] if event.get("version") == "2.0" and "elb" not in request else event
    method = line.get("method" if line is not event else "httpMethod", "GET")
    if not isinstance(method, str) or not _METHOD.fullmatch(method):
        raise TypeError("method")
    texts = (event.get("path"), event.get("rawPath"), line.get("path"), request.get("path"), request.get("stage"))
    if not all(text is None or isinstance(text, str) for text in texts):
        raise TypeError("path")


def _is_valid_header(name: str, value: Any) -> bool:
    values = value if isinstance(value, list) else [value]
    if name.lower() == "host":
        return all(_HOST.fullmatch(v) for v in values)
    if name.lower() == "x-forwarded-port":
        return all(_PORT.fullmatch(v) for v in values)
    return all(isinstance(v, str) for v in values)


def _is_base64(body: str) -> bool:
    try:
        base64.b64decode(body)
    except (binascii.Error, ValueError):
        return False
    return True
