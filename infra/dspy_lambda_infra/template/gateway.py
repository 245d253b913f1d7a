"""A REST API's own answers, in the format of the functions' errors.

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
        """Return the body for the client."""
        return {
            "title": self.title,
            "status": self.status,
            "detail": self.detail or self.title,
            "request_id": request_id,
        }


REFUSALS = {
    "THROTTLED": Refusal(429, "Too many requests", retry_after_seconds=RETRY_AFTER_SECONDS),
    "QUOTA_EXCEEDED": Refusal(429, "Quota exceeded", retry_after_seconds=3600),
    # API Gateway does not distinguish a throttled function from one that cannot be invoked; the access log's
    # integrationStatus does (429: throttled). Without a mapping, both would be a 500.
    "INTEGRATION_FAILURE": Refusal(
        503,
        "Service unavailable",
        "The function has no concurrency left, or cannot be invoked",
        retry_after_seconds=RETRY_AFTER_SECONDS,
    ),
    "INTEGRATION_TIMEOUT": Refusal(504, "Deadline exceeded"),
    # The gateway does not distinguish an unknown path from an unsigned request.
    "MISSING_AUTHENTICATION_TOKEN": Refusal(404, "Not found", "No such path, or a required signature is missing"),
    "UNAUTHORIZED": Refusal(401, "Unauthorized"),
    "ACCESS_DENIED": Refusal(403, "Forbidden"),
    "INVALID_SIGNATURE": Refusal(403, "Forbidden", "The signature is not valid"),
    "EXPIRED_TOKEN": Refusal(403, "Forbidden", "The token has expired"),
    "INVALID_API_KEY": Refusal(403, "Forbidden", "The API key is missing or not valid"),
    "REQUEST_TOO_LARGE": Refusal(413, "Request too large"),
}
