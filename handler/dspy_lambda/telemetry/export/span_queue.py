"""The spans that wait to be sent, bounded in number and roughly in bytes."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, NamedTuple

from dspy_lambda.telemetry.export.otlp import Encoder
from dspy_lambda.telemetry.traces.spans import Span

# As many spans as one invocation may have, which take about 40 MB.
MAX_SPANS, MAX_BYTES = 10_000, 20_000_000
# OpenTelemetry's default for a request; they are encoded in a few milliseconds.
BATCH_SPANS = 512
_SPAN_BYTES = 1_000  # without long texts (measured: 1.0 kB as JSON)
_LOCK_SECONDS = 0.05
_OBJECT_BYTES = 200
_MAX_VALUES = 10_000  # of a payload, to look at; they take about a millisecond


class Request(NamedTuple):
    """An encoded request and the number of its spans."""

    body: bytes
    spans: int


class SpanQueue:
    """Spans in order of their arrival. Any thread puts them in; one thread takes them out, as requests.

    Args:
        prepare: called with spans before they are encoded.

    Attributes:
        spans: how many there are, until they are released.
        bytes: about how much memory their texts take.
    """

    def __init__(self, encoder: Encoder, prepare: Callable[[list[Span]], None] = lambda _: None) -> None:
        self._encoder = encoder
        self._prepare = prepare
        self._lock = threading.Lock()
        self._waiting: deque[tuple[list[Span], int]] = deque()
        self._requests: deque[Request] = deque()
        self.spans = self.bytes = 0

    def put(self, spans: list[Span]) -> int:
        """Put ended spans in, as many as there is room for; return how many of the first ones that is.

        Their payloads become attributes when they are encoded, in the thread that sends them.
        """
        sizes = [_size(span) for span in spans]
        # Nothing waits under this lock, but the garbage collector may run a program's finalizer there that never ends.
        if not self._lock.acquire(timeout=_LOCK_SECONDS):
            return 0
        try:
            count, size = self._fit(sizes)
            self.spans += count
            self.bytes += size
        finally:
            self._lock.release()
        if count:
            self._waiting.append((spans[:count], size))
        for span in spans[count:]:
            span.payload = None  # a task that outlives its call may keep the span
        return count

    def _fit(self, sizes: list[int]) -> tuple[int, int]:
        """Return how many of these have room, and their size."""
        room, count, size = min(MAX_SPANS - self.spans, len(sizes)), 0, 0
        while count < room and self.bytes + size + sizes[count] <= MAX_BYTES:
            size += sizes[count]
            count += 1
        return count, size

    def take(self) -> Request | None:
        """Take the next request; None if nothing waits. What was taken counts until it is released."""
        if not self._requests:
            self._encode()
        return self._requests.popleft() if self._requests else None

    def put_back(self, request: Request) -> None:
        """Put back a request that was taken, as the first one."""
        self._requests.appendleft(request)

    def release(self, request: Request) -> None:
        """Make room: a request was sent or dropped."""
        with self._lock:
            self.spans -= request.spans
            self.bytes -= len(request.body)

    def _encode(self) -> None:
        spans: list[Span] = []
        size = 0
        while self._waiting and len(spans) < BATCH_SPANS:
            some, about = self._waiting.popleft()
            spans += some
            size += about
        self._apply_rules(spans)
        self._requests.extend(Request(*encoded) for encoded in self._encoder.encode(spans))
        with self._lock:
            self.bytes += sum(len(request.body) for request in self._requests) - size

    def _apply_rules(self, spans: list[Span]) -> None:
        """Turn payloads into attributes. The spans are sent without them if that fails."""
        with suppress(Exception):  # a program may change its inputs meanwhile
            self._prepare(spans)
        for span in spans:
            span.payload = None


def _size(span: Span) -> int:
    """Estimate a span's size, without a payload in about 1 us."""
    size = _SPAN_BYTES
    for value in span.attributes.copy().values():
        kind = type(value)
        if kind is str or kind is bytes:
            size += len(value)
        elif kind is list or kind is tuple:
            size += sum(len(item) if type(item) is str else 16 for item in value)
    return size if span.payload is None else size + _payload_size(span.payload)


def _payload_size(payload: dict[str, Any]) -> int:
    """Estimate how much memory the texts of a payload take, from its first values if it has too many."""
    waiting: list[Any] = [payload]
    size = seen = 0
    while waiting and seen < _MAX_VALUES:
        value = waiting.pop()
        seen += 1
        if isinstance(value, str | bytes | bytearray):
            size += len(value)
            continue
        size += _OBJECT_BYTES
        with suppress(Exception):  # from the value's own code, or because a thread changes it meanwhile
            waiting += _parts(value)
    return size * (seen + len(waiting)) // seen


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return list(dict.values(value))
    if isinstance(value, list | tuple | set | frozenset):
        return list(value)
    fields = getattr(value, "__dict__", None)  # a prediction, a pydantic model
    return list(fields.values()) if type(fields) is dict and not isinstance(value, type) else ()
