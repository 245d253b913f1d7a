"""Checks the signatures of requests to Bedrock's paths, as Bedrock does: AWS Signature Version 4.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from dspy_lambda_infra.model_server.behavior import Behavior, Credentials
from dspy_lambda_infra.model_server.failures import FAILURES, Failure

_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 +Credential=([^/, ]+)/(\d{8})/([a-z0-9-]+)/([a-z0-9-]+)/aws4_request, *"
    r"SignedHeaders=([a-z0-9;-]+), *Signature=([0-9a-f]{64})"
)
_VALID = timedelta(minutes=5)
_DATE = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True)
class Received:
    """A request as it came: its path is percent-encoded, and its headers' names are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


def refuse(request: Received, service: str, behavior: Behavior, now: datetime) -> Failure | None:
    """Return Bedrock's error for a request that may not pass.

    Args:
        service: the one that the request must be signed for; "" for any.
        now: the server's time, in UTC.
    """
    authorization = request.headers.get("authorization", "")
    token = authorization.removeprefix("Bearer ") if authorization.startswith("Bearer ") else None
    # A Bedrock API key comes as x-api-key where Anthropic's own key would.
    token = token or request.headers.get("x-api-key")
    if token is not None:
        if behavior.bearer_token and hmac.compare_digest(token.encode(), behavior.bearer_token.encode()):
            return None
        return _failure("AccessDeniedException", "Authentication failed: Please make sure your API Key is valid.")
    if not authorization:
        return FAILURES["MissingAuthenticationTokenException"]
    found = _AUTHORIZATION.fullmatch(authorization)
    if not found:
        return _failure("InvalidSignatureException", "Authorization header is not a valid AWS4-HMAC-SHA256 header.")
    key, day, region, signed_for, names, signature = found.groups()
    credentials = next((c for c in behavior.credentials if c.access_key == key), None)
    if credentials is None or credentials.session_token != request.headers.get("x-amz-security-token"):
        return FAILURES["UnrecognizedClientException"]
    if credentials.expired:
        return FAILURES["ExpiredTokenException"]
    if service and service != signed_for:
        message = f"Credential should be scoped to correct service: '{service}'."
        return _failure("InvalidSignatureException", message)
    wrong = _refuse_date(request.headers.get("x-amz-date", ""), day, now) or _refuse_headers(request, names)
    if wrong:
        return _failure("InvalidSignatureException", wrong)
    expected = _sign(request, names.split(";"), credentials, region, signed_for)
    return None if hmac.compare_digest(expected, signature) else FAILURES["InvalidSignatureException"]


def _failure(name: str, message: str) -> Failure:
    return replace(FAILURES[name], message=message)


def _refuse_date(date: str, day: str, now: datetime) -> str:
    try:
        sent = datetime.strptime(f"{date}+0000", f"{_DATE}%z")
    except ValueError:
        return "Date in x-amz-date must be in ISO-8601 'basic format'."
    shown = f"{now:{_DATE}}"
    if date[:8] != day:
        return f"Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date: '{day}' != '{date}'."
    if sent < now - _VALID:
        return f"Signature expired: {date} is now earlier than {now - _VALID:{_DATE}} ({shown} - 5 min.)"
    if sent > now + _VALID:
        return f"Signature not yet current: {date} is still later than {now + _VALID:{_DATE}} ({shown} + 5 min.)"
    return ""


def _refuse_headers(request: Received, names: str) -> str:
    signed = names.split(";")
    if signed != sorted(set(signed)):
        return "'SignedHeaders' must be sorted."
    required = {"host", *(name for name in request.headers if name.startswith("x-amz-"))}
    if missing := sorted(required - set(signed)):
        return f"'{missing[0]}' must be a 'SignedHeader' in the AWS Authorization."
    hashed = request.headers.get("x-amz-content-sha256")
    if hashed not in (None, hashlib.sha256(request.body).hexdigest()):
        return "The value of x-amz-content-sha256 does not match the body."
    return ""


def _sign(request: Received, names: list[str], credentials: Credentials, region: str, service: str) -> str:
    # botocore is what the signature is compared with, so that this server and the adapter share no mistake.
    # Imported here: most runs of the server never see a signed request.
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials as Pair

    headers = {name: request.headers.get(name, "") for name in names}
    url = f"http://{request.headers.get('host', '')}{request.path}"
    signed: Any = AWSRequest(method=request.method, url=url, headers=headers, data=request.body)
    signed.context["timestamp"] = request.headers["x-amz-date"]
    signer: Any = SigV4Auth(Pair(credentials.access_key, credentials.secret_key), service, region)
    signature: str = signer.signature(signer.string_to_sign(signed, signer.canonical_request(signed)), signed)
    return signature
