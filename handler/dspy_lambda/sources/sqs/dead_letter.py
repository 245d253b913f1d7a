"""Build dead-letter queue entries: the record as it was received, and the reason why it failed.

Limits: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Container, Iterable, Iterator
from typing import Any

from dspy_lambda.sources.sqs.failure import Failure

MAX_BYTES = 1_048_576  # per message and per batch request: bodies, and the attributes' names, types and values
MAX_ENTRIES = 10
MAX_ATTRIBUTES = 10
_REASON_LENGTH = 1000
_LATER_REASON = "DspyLambdaReason"
# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html
# Compiled on first use, because compiling it takes 7 ms, which every cold start would pay.
_REFUSED = "[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"


def dead_letter(number: int, failure: Failure) -> dict[str, Any]:
    """Create an entry of SendMessageBatch, with the record's message attributes and the reason.

    The record's own attributes come first, because they are needed to send it back to its queue. The reason is added if
    there is room. It is called `DspyLambdaReason` if the record already has a `Reason`.
    """
    record = failure.record
    own = _own_attributes(record.raw)
    own.pop(_LATER_REASON, None)  # from an earlier failure
    added = {_reason_name(own): _string(_sendable(failure.error.detail)), "SourceMessageId": _string(record.identifier)}
    attributes: dict[str, Any] = {}
    entry = {"Id": str(number), "MessageBody": record.raw["body"], "MessageAttributes": attributes}
    room = MAX_BYTES - size(entry)
    for name, value in [*own.items(), *((name, value) for name, value in added.items() if name not in own)]:
        needed = _bytes(name, *value.values())
        if len(attributes) < MAX_ATTRIBUTES and needed <= room:
            attributes[name] = value
            room -= needed
    if record.raw["eventSourceARN"].endswith(".fifo"):
        entry["MessageGroupId"] = record.group or "none"
        entry["MessageDeduplicationId"] = record.identifier
    return entry


def has_reason(entry: dict[str, Any], failure: Failure) -> bool:
    """Whether the entry had room for the reason."""
    return _reason_name(_own_attributes(failure.record.raw)) in entry["MessageAttributes"]


def requests(entries: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Split the entries into as few requests as possible."""
    request: list[dict[str, Any]] = []
    room = 0
    for entry in entries:
        needed = size(entry)
        if request and (len(request) == MAX_ENTRIES or needed > room):
            yield request
            request = []
        if not request:
            room = MAX_BYTES
        request.append(entry)
        room -= needed
    if request:
        yield request


def size(entry: dict[str, Any]) -> int:
    """Return the size of an entry in bytes, as SQS counts it."""
    attributes = entry["MessageAttributes"].items()
    return _bytes(entry["MessageBody"]) + sum(_bytes(name, *value.values()) for name, value in attributes)


def _reason_name(own: Container[str]) -> str:
    return _LATER_REASON if "Reason" in own else "Reason"


def _bytes(*parts: str | bytes) -> int:
    return sum(len(part.encode(errors="replace") if isinstance(part, str) else part) for part in parts)


def _string(value: str) -> dict[str, Any]:
    return {"DataType": "String", "StringValue": value}


def _sendable(text: str) -> str:
    return re.sub(_REFUSED, "?", text[:_REASON_LENGTH]) or "unknown"  # SQS refuses an empty value, too


def _own_attributes(record: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Convert the record's message attributes: Lambda encodes binary values in base64, and spells keys differently."""
    attributes = record.get("messageAttributes")
    found = {}
    for name, value in attributes.items() if isinstance(attributes, dict) else ():
        if not isinstance(value, dict) or not isinstance(value.get("dataType"), str):
            continue
        if isinstance(value.get("stringValue"), str):
            found[name] = {"DataType": value["dataType"], "StringValue": value["stringValue"]}
        elif isinstance(value.get("binaryValue"), str):
            try:
                data = base64.b64decode(value["binaryValue"])
            except (binascii.Error, ValueError):  # ValueError: not ASCII
                continue
            found[name] = {"DataType": value["dataType"], "BinaryValue": data}
    return found
