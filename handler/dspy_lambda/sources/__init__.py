"""Event sources: one module each, recognized by the event's shape alone, and imported on demand.

A source is a module with three functions: `begin` creates an event's invocation, `handle` answers the event in the
runner's thread, and `late` answers it at the deadline. `begin` and `late` run in the main thread. A source with work at
init also has `prepare`. A schedule sends a direct event as its input and needs no source.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, Protocol, cast

from dspy_lambda.api.events import kind_of
from dspy_lambda.environment import Environment
from dspy_lambda.errors import UnknownEvent
from dspy_lambda.invocation import Invocation
from dspy_lambda.runner import Runner


class Source(Protocol):
    """An event source."""

    def begin(self, environment: Environment, event: dict[str, Any], context: Any, /) -> Invocation: ...

    def handle(
        self, environment: Environment, runner: Runner, event: dict[str, Any], context: Any, invocation: Invocation, /
    ) -> Any: ...

    def late(self, environment: Environment, event: dict[str, Any], invocation: Invocation, /) -> Any: ...


def _is_request(event: dict[str, Any]) -> bool:
    return kind_of(event) is not None


def _is_batch(event: dict[str, Any]) -> bool:
    records = event.get("Records")
    return isinstance(records, list) and any(
        isinstance(record, dict) and record.get("eventSource") == "aws:sqs" for record in records
    )


def _is_direct(event: dict[str, Any]) -> bool:
    """Whether the only keys are `inputs` and, optionally, `program`."""
    return "inputs" in event and set(event) <= {"program", "inputs"}


_SHAPES: dict[str, Callable[[dict[str, Any]], bool]] = {"http": _is_request, "sqs": _is_batch, "direct": _is_direct}
_TAKEN = "REST API, HTTP API, function URL, ALB, SQS, and direct invocations {'program': ..., 'inputs': {...}}"


def prepare(environment: Environment) -> None:
    """Load the code of the sources that the settings name. Other sources are loaded with their first event.

    Loading is cheapest at init: there is a full CPU, and no caller waits.
    """
    for name in environment.settings.sources:
        source: Any = _load(name)
        if hasattr(source, "prepare"):
            source.prepare(environment)


def recognize(event: Any) -> Source:
    """Return the source of an event.

    Raises:
        UnknownEvent: No source recognizes the event.
    """
    if isinstance(event, dict):
        for name, fits in _SHAPES.items():
            if fits(event):
                return _load(name)
    raise UnknownEvent(f"{_describe(event)} This function accepts events of {_TAKEN}.")


def _load(name: str) -> Source:
    return cast(Source, import_module(f"dspy_lambda.sources.{name}"))


def _describe(event: Any) -> str:
    if not isinstance(event, dict):
        return f"The event is a JSON {type(event).__name__}, not an object."
    if event.get("source") == "aws.events":
        return "This is a bare EventBridge event; set a direct event as the constant input of the rule or schedule."
    keys = ", ".join(sorted(str(key)[:40] for key in event)[:10])
    # The runtime client cannot encode half of a surrogate pair in an error's message, and the environment would end.
    keys = keys.encode(errors="replace").decode()
    return f"No event source matches an object with the keys: {keys or '(none)'}."
