"""What AWS answers to someone who may not ask."""

from __future__ import annotations

from botocore.exceptions import ClientError

_CODES = ("AccessDenied", "AccessDeniedException")


def is_denied(error: ClientError) -> bool:
    """Whether a permission is missing: who deploys need not have those that only look something up."""
    return error.response["Error"]["Code"] in _CODES
