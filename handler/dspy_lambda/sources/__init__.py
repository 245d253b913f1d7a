"""Event sources: one file each, asked in order.

A source is a module with four functions: `recognise(event)` tells whether an event is its own, by its shape alone;
`begin` makes its invocation and `late` answers at the deadline, both in the main thread; `handle` answers it, in the
runner's thread. A schedule has no file here: it sends the direct event as its input.
"""

from __future__ import annotations

from typing import Any, Protocol

from dspy_lambda.environment import Environment
from dspy_lambda.errors import UnknownEvent
from dspy_lambda.invocation import Invocation
from dspy_lambda.runner import Runner
from dspy_lambda.sources import direct, http, sqs


class Source(Protocol):
    """An event source."""

    def recognise(self, event: dict[str, Any], /) -> bool: ...

    def begin(self, environment: Environment, event: dict[str, Any], context: Any, /) -> Invocation: ...

    def handle(
        self, environment: Environment, runner: Runner, event: dict[str, Any], context: Any, invocation: Invocation, /
    ) -> Any: ...

    def late(self, environment: Environment, event: dict[str, Any], invocation: Invocation, /) -> Any: ...


SOURCES: tuple[Source, ...] = (http, sqs, direct)
_TAKEN = "REST API, HTTP API, function URL, ALB, SQS, and direct invocations {'program': ..., 'inputs': {...}}"


def prepare(environment: Environment) -> None:
    """Load the code of the sources that this function is sure to get events from, as its settings say.

    At init it costs least: a full CPU, and no caller waits. What is not named loads with its first event.
    """
    for name in environment.settings.sources:
        if name == "http":
            http.prepare(environment)
        if name == "sqs":
            sqs.prepare(environment)


def recognise(event: Any) -> Source:
    """The source that an event is from.

    Raises:
        UnknownEvent: none of them is.
    """
    if isinstance(event, dict):
        for source in SOURCES:
            if source.recognise(event):
                return source
    raise UnknownEvent(f"{_describe(event)} This function takes events of {_TAKEN}.")


def _describe(event: Any) -> str:
    if not isinstance(event, dict):
        return f"The event is a JSON {type(event).__name__}, not an object."
    if event.get("source") == "aws.events":
        return "This is a bare EventBridge event; give the rule or schedule a direct event as its constant input."
    keys = ", ".join(sorted(str(key)[:40] for key in event)[:10])
    # Half a surrogate pair cannot be encoded: the runtime client would end with its environment on the error's text.
    keys = keys.encode(errors="replace").decode()
    return f"No event source sends an object with the keys: {keys or '(none)'}."
