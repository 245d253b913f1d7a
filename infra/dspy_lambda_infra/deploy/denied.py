"""Recognizes errors about missing permissions."""

from __future__ import annotations

from botocore.exceptions import ClientError

_CODES = ("AccessDenied", "AccessDeniedException")


def is_denied(error: ClientError) -> bool:
    """Whether a permission is missing: deploying does not require those that are only used for lookups."""
    return error.response["Error"]["Code"] in _CODES
