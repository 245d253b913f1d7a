"""Sign requests as AWS services other than S3 expect them.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from dspy_lambda.dspy_patches.lm15 import AwsCredentials, sign

Headers = list[tuple[str, str]]


def model_path(model_id: str, operation: str) -> str:
    """Return the path of a model's operation; an ARN's slashes and colons are encoded in it."""
    return f"/model/{quote(model_id, safe='')}/{operation}"


def authorized(
    url: str, headers: Headers, body: bytes, credential: Any, *, region: str, service: str, now: Callable[[], datetime]
) -> Headers:
    """Return the headers of a POST request, signed with the role's credentials or with a bearer token.

    Args:
        credential: what `RoleCredentials` returns, or lm15's form of an `api_key`.
    """
    if not isinstance(credential, AwsCredentials):
        return [*headers, ("authorization", f"Bearer {credential.value}")]
    signature = sign(
        method="POST",
        url=encoded_again(url),
        headers=dict(headers),
        payload=body,
        credentials=credential,
        region=region,
        service=service,
        now=now(),
    )
    return list(signature.headers.items())


def encoded_again(url: str) -> str:
    """Return an address whose path is encoded once more, for lm15's signer, which encodes a path's characters once.

    A server expects the path in a signature encoded twice: once as it was sent, and once more.
    """
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc, quote(parts.path, safe="/"), parts.query, parts.fragment))
