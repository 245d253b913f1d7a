"""Event sources: one file each, asked in order.

A source is two functions: `recognise(event)` tells whether an event is its own, by its shape alone;
`handle(environment, event, context)` answers it. A schedule has no file here: it sends the direct event as its input.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dspy_lambda.environment import Environment
from dspy_lambda.errors import ConfigError, UnknownEvent
from dspy_lambda.sources import direct, http, sqs

Handle = Callable[[Environment, Any, Any], Any]
SOURCES = (http, sqs, direct)
_NAMED = ("http", "sqs", "direct")
_TAKEN = "REST API, HTTP API, function URL, ALB, SQS, and direct invocations {'program': ..., 'inputs': {...}}"


def prepare(environment: Environment, names: str) -> None:
    """Load the code of the sources that this function is sure to get events from (a comma-separated list).

    At init it costs least: a full CPU, and no caller waits. What is not named loads with its first event.
    """
    for name in filter(None, (part.strip() for part in names.split(","))):
        if name not in _NAMED:
            raise ConfigError(f"DSPY_LAMBDA_SOURCES: no source {name!r}; there are: {', '.join(_NAMED)}.")
        if name == "http":
            http.prepare(environment)


def recognise(event: Any) -> Handle:
    """The handle function of the source that an event is from.

    Raises:
        UnknownEvent: none of them is.
    """
    if isinstance(event, dict):
        for source in SOURCES:
            if source.recognise(event):
                handle: Handle = source.handle
                return handle
    raise UnknownEvent(f"{_describe(event)} This function takes events of {_TAKEN}.")


def _describe(event: Any) -> str:
    if not isinstance(event, dict):
        return f"The event is a JSON {type(event).__name__}, not an object."
    if event.get("source") == "aws.events":
        return "This is a bare EventBridge event; give the rule or schedule a direct event as its constant input."
    keys = ", ".join(sorted(str(key)[:40] for key in event)[:10])
    return f"No event source sends an object with the keys: {keys or '(none)'}."
