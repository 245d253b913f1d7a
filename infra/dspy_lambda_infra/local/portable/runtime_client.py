"""awslambdaric's native module in pure Python, for machines (macOS) where that is not built.

The runtime client itself is AWS's; only the four functions of its C++ part are replaced.
Source: awslambdaric 4.2, lambda_runtime_client.py (what it calls), and
https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html (what the calls do).
"""

from __future__ import annotations

import http.client
import os
from typing import Any

_PREFIX = "/2018-06-01/runtime/invocation"
_user_agent = ""


def initialize_client(user_agent: str) -> None:
    """Remember the user agent."""
    global _user_agent
    _user_agent = user_agent


def next() -> tuple[bytes, dict[str, Any]]:
    """Wait for the next invocation and return its event and headers."""
    response, body = _call("GET", f"{_PREFIX}/next")
    headers: dict[str, Any] = dict(response.getheaders())
    headers["Lambda-Runtime-Deadline-Ms"] = int(headers["Lambda-Runtime-Deadline-Ms"])
    return body, headers


def post_invocation_result(invoke_id: str, data: bytes, content_type: str, _invocation_id: str | None) -> None:
    """Send an answer."""
    _call("POST", f"{_PREFIX}/{invoke_id}/response", data, {"Content-Type": content_type})


def post_error(invoke_id: str, error: str, xray_fault: str, _invocation_id: str | None) -> None:
    """Send a function error."""
    headers = {"Content-Type": "application/json", "Lambda-Runtime-Function-XRay-Error-Cause": xray_fault}
    _call("POST", f"{_PREFIX}/{invoke_id}/error", error.encode(), headers)


def _call(
    method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
    try:
        connection.request(method, path, body, {"User-Agent": _user_agent, **(headers or {})})
        response = connection.getresponse()
        data = response.read()
    finally:
        connection.close()
    if response.status >= 300:
        raise RuntimeError(f"{method} {path}: {response.status}")
    return response, data
