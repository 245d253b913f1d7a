"""Read a record's attributes, whatever the record holds.

Only strings are read and nothing is converted to a string: a list may be nested too deeply for `str`.
"""

from __future__ import annotations

from typing import Any

_DIGITS = 10


def identifier_of(raw: Any) -> str:
    """Return a record's messageId, or an empty string if it has none in ASCII."""
    identifier = raw.get("messageId") if isinstance(raw, dict) else None
    return identifier if isinstance(identifier, str) and identifier.isascii() else ""


def body_of(raw: Any) -> str | None:
    """Return a record's body, or None if it has none."""
    body = raw.get("body") if isinstance(raw, dict) else None
    return body if isinstance(body, str) else None


def group_of(raw: Any) -> str | None:
    """Return the message group whose order a record is in, or None.

    Standard queues carry MessageGroupId too, for fair queues; order is only promised by FIFO ones.
    """
    arn = raw.get("eventSourceARN") if isinstance(raw, dict) else None
    return _attribute(raw, "MessageGroupId") if isinstance(arn, str) and arn.endswith(".fifo") else None


def receive_count(raw: Any) -> int:
    """Return how often SQS has delivered a record, including this time."""
    count = _attribute(raw, "ApproximateReceiveCount") or ""
    return int(count) if count.isdecimal() and len(count) < _DIGITS else 1


def _attribute(raw: Any, name: str) -> str | None:
    attributes = raw.get("attributes") if isinstance(raw, dict) else None
    value = attributes.get(name) if isinstance(attributes, dict) else None
    return value if isinstance(value, str) else None
