"""Requests to AWS, signed with the function's own credentials by lm15's signer: neither boto3 nor botocore.

Imported, and `AWS_REQUESTS` applied, with the first such request.
"""

from __future__ import annotations

import os
import threading
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from dspy_lambda.dspy_patches.http_client import Request
from dspy_lambda.dspy_patches.patch import Name, Patch

_CHAINS = "dspy._vendor.lm15.cloud.chains"
AWS_REQUESTS = Patch(
    "lm15's signer for other requests",
    "boto3 and botocore, 290-340 ms of a cold start",
    (
        Name("dspy._vendor.lm15.cloud.sigv4", "sign", "method url headers payload credentials region service now"),
        Name("dspy._vendor.lm15.credentials", "AwsCredentials", "access_key_id secret_access_key session_token ..."),
        Name("dspy._vendor.lm15.access", "BEDROCK_CHAT"),
        Name(_CHAINS, "ChainContext.online", "env kw"),
        Name(_CHAINS, "resolve", "policy ctx named"),
    ),
)
_lock = threading.Lock()
_fetched: list[Any] = []


def can_sign_at_once() -> bool:
    """Whether `signed` returns without waiting for the network or a file."""
    return _from_environment() is not None or _fresh() is not None


def signed(request: Request, region: str, service: str) -> Request:
    """Return a request with the headers of its signature; may wait for the network to fetch credentials.

    Raises:
        LM15Error: There are no credentials, or their source failed.
    """
    from dspy._vendor.lm15.cloud.sigv4 import sign

    credentials = _from_environment() or _fresh() or _fetch()
    # AWS signs the path as it is sent, encoded once more, but lm15 decodes what it gets first.
    parts = urlsplit(request.url)
    found = sign(
        method="POST",
        url=urlunsplit(parts._replace(path=quote(parts.path))),
        headers=request.headers,
        payload=request.body,
        credentials=credentials,
        region=region,
        service=service,
        now=datetime.now(UTC),
    )
    return request._replace(headers={name: value for name, value in found.headers.items() if name != "host"})


def _from_environment() -> Any:
    """Read the role's credentials anew for each request: Lambda sets others when it restores a snapshot."""
    key, secret = os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_SECRET_ACCESS_KEY")
    if not key or not secret:
        return None
    from dspy._vendor.lm15.credentials import AwsCredentials

    return AwsCredentials(key, secret, session_token=os.environ.get("AWS_SESSION_TOKEN") or None)


def _fresh() -> Any:
    """Return fetched credentials that do not expire within five minutes (lm15's margin), or None."""
    value = _fetched[0] if _fetched else None
    return None if value is None or value.is_expired() else value


def _fetch() -> Any:
    from dspy._vendor.lm15.access import BEDROCK_CHAT
    from dspy._vendor.lm15.cloud.chains import ChainContext, resolve

    with _lock:
        if (value := _fresh()) is None:
            value, _ = resolve(BEDROCK_CHAT, ChainContext.online())
            _fetched[:] = [value]
    return value
