"""What a REST API answers by itself, in the words of the functions' own errors.

https://docs.aws.amazon.com/apigateway/latest/developerguide/supported-gateway-response-types.html
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

RETRY_AFTER_SECONDS = 1


@dataclass(frozen=True)
class Refusal:
    """One of the gateway's own answers."""

    status: int
    title: str
    detail: str | None = None
    retry_after_seconds: int | None = None

    def body(self, request_id: str) -> dict[str, Any]:
        """What the client reads."""
        return {
            "title": self.title,
            "status": self.status,
            "detail": self.detail or self.title,
            "request_id": request_id,
        }


REFUSALS = {
    "THROTTLED": Refusal(429, "Too many requests", retry_after_seconds=RETRY_AFTER_SECONDS),
    "QUOTA_EXCEEDED": Refusal(429, "Quota exceeded", retry_after_seconds=3600),
    # A throttled function and one that cannot be invoked are the same to API Gateway; the access log's
    # integrationStatus tells them apart (429: a throttle). Without a mapping both would be a 500.
    "INTEGRATION_FAILURE": Refusal(
        503,
        "Service unavailable",
        "The function has no concurrency left, or cannot be invoked",
        retry_after_seconds=RETRY_AFTER_SECONDS,
    ),
    "INTEGRATION_TIMEOUT": Refusal(504, "The deadline came first"),
    # The gateway does not tell an unknown path and an unsigned request apart.
    "MISSING_AUTHENTICATION_TOKEN": Refusal(404, "Not found", "No such path; or a signature is wanted and missing"),
    "UNAUTHORIZED": Refusal(401, "Unauthorized"),
    "ACCESS_DENIED": Refusal(403, "Forbidden"),
    "INVALID_SIGNATURE": Refusal(403, "Forbidden", "The signature is not valid"),
    "EXPIRED_TOKEN": Refusal(403, "Forbidden", "The token has expired"),
    "INVALID_API_KEY": Refusal(403, "Forbidden", "The API key is missing or not valid"),
    "REQUEST_TOO_LARGE": Refusal(413, "Request too large"),
}
