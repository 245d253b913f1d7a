"""Event sources: one module each, told apart by the shape of an event alone, and imported by who needs it.

A source is a module with three functions: `begin` makes an event's invocation and `late` answers at the deadline, both
in the main thread; `handle` answers it, in the runner's thread. One that has something to make ready at init has
`prepare`, too. A schedule has no file here: it sends the direct event as its input.
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
    """`inputs`, with or without `program`, and nothing else."""
    return "inputs" in event and set(event) <= {"program", "inputs"}


_SHAPES: dict[str, Callable[[dict[str, Any]], bool]] = {"http": _is_request, "sqs": _is_batch, "direct": _is_direct}
_TAKEN = "REST API, HTTP API, function URL, ALB, SQS, and direct invocations {'program': ..., 'inputs': {...}}"


def prepare(environment: Environment) -> None:
    """Load the code of the sources that this function is sure to get events from, as its settings say.

    At init it costs least: a full CPU, and no caller waits. What is not named loads with its first event.
    """
    for name in environment.settings.sources:
        source: Any = _load(name)
        if hasattr(source, "prepare"):
            source.prepare(environment)


def recognise(event: Any) -> Source:
    """The source that an event is from.

    Raises:
        UnknownEvent: none of them is.
    """
    if isinstance(event, dict):
        for name, fits in _SHAPES.items():
            if fits(event):
                return _load(name)
    raise UnknownEvent(f"{_describe(event)} This function takes events of {_TAKEN}.")


def _load(name: str) -> Source:
    return cast(Source, import_module(f"dspy_lambda.sources.{name}"))


def _describe(event: Any) -> str:
    if not isinstance(event, dict):
        return f"The event is a JSON {type(event).__name__}, not an object."
    if event.get("source") == "aws.events":
        return "This is a bare EventBridge event; give the rule or schedule a direct event as its constant input."
    keys = ", ".join(sorted(str(key)[:40] for key in event)[:10])
    # Half a surrogate pair cannot be encoded: the runtime client would end with its environment on the error's text.
    keys = keys.encode(errors="replace").decode()
    return f"No event source sends an object with the keys: {keys or '(none)'}."
