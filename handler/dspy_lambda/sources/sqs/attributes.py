"""Read a record's attributes, whatever the record holds.

Only strings are read and nothing is converted to a string: a list may be nested too deeply for `str`.
"""

from __future__ import annotations

from typing import Any

_DIGITS = 10
_MS_DIGITS = 14
# A queue keeps a record for at most 14 days; sample events carry timestamps of years ago.
# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SetQueueAttributes.html
_MAX_AGE_MS = 14 * 24 * 3600 * 1000


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


def age_ms(raw: Any, now: float) -> int | None:
    """Return how many milliseconds ago a record was sent to its queue, or None if that is unknown.

    Args:
        now: seconds since the epoch. The clocks of the queue and of this machine may differ a little.
    """
    sent = _attribute(raw, "SentTimestamp") or ""
    if not sent.isdecimal() or len(sent) >= _MS_DIGITS:
        return None
    age = int(now * 1000) - int(sent)
    return max(age, 0) if age <= _MAX_AGE_MS else None


def _attribute(raw: Any, name: str) -> str | None:
    attributes = raw.get("attributes") if isinstance(raw, dict) else None
    value = attributes.get(name) if isinstance(attributes, dict) else None
    return value if isinstance(value, str) else None
