"""Event sources: one file each, asked in order.

A source is two functions: `recognise(event)` tells whether an event is its own, by its shape alone;
`handle(environment, event, context)` answers it. A schedule has no file here: it sends the direct event as its input.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from handler.errors import UnknownEvent
from handler.sources import direct, http, sqs

SOURCES = (http, sqs, direct)
_TAKEN = "REST API, HTTP API, function URL, ALB, SQS, and direct invocations {'program': ..., 'inputs': {...}}"


def recognise(event: Any) -> Callable[..., Any]:
    """The handle function of the source that an event is from.

    Raises:
        UnknownEvent: none of them is.
    """
    if isinstance(event, dict):
        for source in SOURCES:
            if source.recognise(event):
                return source.handle
    raise UnknownEvent(f"{_describe(event)} This function takes events of {_TAKEN}.")


def _describe(event: Any) -> str:
    if not isinstance(event, dict):
        return f"The event is a JSON {type(event).__name__}, not an object."
    if event.get("source") == "aws.events":
        return "This is a bare EventBridge event; give the rule or schedule a direct event as its constant input."
    return f"No event source sends an object with the keys: {', '.join(sorted(map(str, event))[:10]) or '(none)'}."
