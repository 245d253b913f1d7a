"""What the model server counted: requests, connections, and the tokens of its answers, per model too."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

_STARTS_KEPT = 100_000
# The sums per model.
_SUMS = (
    "requests",
    "answered",
    "prompt_tokens",
    "completion_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
)


class Counts:
    """Counts since the last `behave`; requests that began earlier are not counted."""

    def __init__(self) -> None:
        self.requests = self.in_flight = self.peak_in_flight = 0
        self.connections: set[Any] = set()
        self.per_model: dict[str, int] = {}
        self.models: dict[str, dict[str, int]] = {}
        self.started: deque[float] = deque(maxlen=_STARTS_KEPT)
        self.traceparents: deque[str] = deque(maxlen=_STARTS_KEPT)
        self.answered = self.prompt_tokens = self.completion_tokens = 0

    def begin(self, traceparent: str | None) -> None:
        self.requests += 1
        if traceparent is not None:
            self.traceparents.append(traceparent)
        self.started.append(time.monotonic())
        self.in_flight += 1
        self.peak_in_flight = max(self.peak_in_flight, self.in_flight)

    def ask(self, model: str) -> None:
        """Count a request whose model is known."""
        self.per_model[model] = self.per_model.get(model, 0) + 1
        self.models.setdefault(model, dict.fromkeys(_SUMS, 0))["requests"] += 1

    def answer(self, model: str, usage: dict[str, Any]) -> None:
        """Count an answer that was sent in full, by its usage in the form of a chat completion."""
        read, written = cached_tokens(usage)
        self.answered += 1
        self.prompt_tokens += usage["prompt_tokens"]
        self.completion_tokens += usage["completion_tokens"]
        sums = self.models[model]
        added = (0, 1, usage["prompt_tokens"], usage["completion_tokens"], read, written)
        for name, number in zip(_SUMS, added, strict=True):
            sums[name] += number

    def fields(self) -> dict[str, Any]:
        return {
            **vars(self),
            "connections": len(self.connections),
            **{name: list(getattr(self, name)) for name in ("started", "traceparents")},
        }


def cached_tokens(usage: dict[str, Any]) -> tuple[int, int]:
    """Return how many of a usage's prompt tokens were read from the prompt cache, and how many written to it."""
    details = usage.get("prompt_tokens_details", {})
    return details.get("cached_tokens", 0), details.get("cache_write_tokens", 0)
