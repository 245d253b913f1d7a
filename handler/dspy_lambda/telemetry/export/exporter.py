"""Send spans in the background: one thread empties a bounded queue, and pauses after failures."""

from __future__ import annotations

import os
import threading
import time
import weakref
from _thread import LockType, allocate_lock
from collections import Counter, deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Literal, NamedTuple

from dspy_lambda.telemetry import Log
from dspy_lambda.telemetry.export.breaker import Breaker
from dspy_lambda.telemetry.export.otlp import Encoder
from dspy_lambda.telemetry.export.span_queue import BATCH_SPANS, Request, SpanQueue
from dspy_lambda.telemetry.traces.spans import Span


class Reply(NamedTuple):
    """What became of a request.

    Attributes:
        outcome: `sent`; `refused`: sending it again is of no use; `busy`: the server wants it later; `failed`: it may
            have arrived; `unreachable`: nothing was sent.
        rejected: how many of its spans the server did not accept.
        retry_after: seconds that the server asks to wait.
        reason: for the log: what happened, and what to do about it.
    """

    outcome: Literal["sent", "refused", "busy", "failed", "unreachable"]
    rejected: int = 0
    retry_after: float = 0.0
    reason: str = ""


# Called with a request's body and when to give up, by the monotonic clock.
Send = Callable[[bytes, float], Reply]


class Exporter:
    """Sends spans from a thread of its own; drops and counts those that cannot be sent.

    The thread sends when `flush` asks for it; with an `interval`, also after so many seconds and when 512 spans wait.
    It starts when it is first needed, and again in a forked child.

    Args:
        send: sends one request.
        resource: the attributes of the resource that the spans belong to.
        log: called when sending begins to fail, and when it works again.
        interval: seconds after which waiting spans are sent; None to send only within the time of a `flush`, because
            the environment may be frozen at any other time.
        send_seconds: the time limit of a request.
        drop_connection: closes the connection that `send` uses.

    Attributes:
        dropped: the number of spans dropped so far, by reason.
        breaker: open after a failed request.
        prepare: called with spans before they are encoded.
        redact: returns a text without keys, for all texts of spans.
        report: called by `close` with the number of spans dropped that `take_dropped` has not returned.
        mode: when spans leave. `extension`: after each answer, while an internal extension holds back the freeze;
            `inline`: before each answer, for a bounded time, where no extension can run; `background`: every second,
            where nothing freezes the process (`serve`, Managed Instances).
        extension_id: what Lambda knows the extension by; empty if there is none.
    """

    mode: Literal["extension", "inline", "background"] = "background"
    extension_id = ""

    def __init__(
        self,
        send: Send,
        resource: Mapping[str, Any],
        log: Log,
        *,
        interval: float | None = None,
        send_seconds: float = 1.0,
        drop_connection: Callable[[], None] = lambda: None,
    ) -> None:
        self._send, self._log, self._drop_connection = send, log, drop_connection
        self._encoder = Encoder(resource, lambda text: self.redact(text))
        self._interval = interval
        self._send_seconds = send_seconds
        self._closed = False
        self.prepare: Callable[[list[Span]], None] = lambda _: None
        self.redact: Callable[[str], str] = str
        self.report: Callable[[int], None] = lambda _: None
        self.breaker = Breaker()
        self._start_clean()
        _exporters.add(self)

    def _start_clean(self) -> None:
        """Begin with an empty queue and without a thread; new locks, because a fork may have copied held ones."""
        self._lock = allocate_lock()
        self._wake = allocate_lock()  # released to wake the thread up
        self._wake.acquire()
        self._thread: threading.Thread | None = None
        self._flushes: deque[LockType] = deque()
        self._flush_ends = 0.0
        self._discard()

    def _discard(self) -> None:
        self._queue = SpanQueue(self._encoder, lambda spans: self.prepare(spans))
        self.dropped: Counter[str] = Counter()
        self._reported = 0
        self._failing = ""
        self._is_connection_stale = False
        self.breaker.reset()

    def add(self, spans: list[Span]) -> None:
        """Queue ended spans; drop and count them if there is no room. Never waits for the network."""
        if self._closed:
            self._drop(len(spans), "closed")
            return
        self._drop(len(spans) - self._queue.put(spans), "queue full")
        if self._interval is not None and (self._thread is None or self._queue.spans >= BATCH_SPANS):
            self._wake_up()

    def flush(self, seconds: float) -> bool:
        """Send what waits, for at most so many seconds; return whether nothing is left.

        Returns at once during the pause after a failed request, or after a flush that took too long.
        """
        queue = self._queue
        if not queue.spans:
            return True
        if self.breaker.is_open or self._closed or seconds <= 0:
            return False
        done = allocate_lock()
        done.acquire()
        self._flush_ends = max(self._flush_ends, time.monotonic() + seconds)
        self._flushes.append(done)
        self._wake_up()
        if not done.acquire(timeout=seconds):
            # The next one must not wait as well: a name that cannot be resolved takes longer than any time limit.
            self.breaker.fail()
        return not queue.spans

    def take_dropped(self) -> int:
        """Return how many spans were dropped since the last call."""
        with self._lock:
            total = sum(self.dropped.values())
            dropped, self._reported = total - self._reported, total
        return dropped

    def close(self, seconds: float = 0.3) -> None:
        """Send what waits, for at most so many seconds, and drop the rest and later spans. Later calls do nothing."""
        if self._closed:
            return
        self.flush(seconds)
        self._closed = True
        self._drop(self._queue.spans, "not sent")
        if dropped := self.take_dropped():
            self.report(dropped)
        if self._thread is not None:
            self._wake_up()

    def reset(self) -> None:
        """Start clean after a snapshot was restored: spans and connection belong to the environment that it shows."""
        self._discard()
        self._is_connection_stale = True  # the thread may be using it

    def start_clean_in_child(self) -> None:
        """Start clean in a forked child, whose spans and connection are its parent's."""
        self._start_clean()
        self._drop_connection()

    def _wake_up(self) -> None:
        if self._thread is None:
            self._start()
        with suppress(RuntimeError):  # it has already been woken up
            self._wake.release()

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="dspy-lambda-export", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while not self._closed:
            # A program may throw an exception, even SystemExit, into any thread (PyThreadState_SetAsyncExc).
            with suppress(BaseException):
                self._send_until_closed()
        self._drop_connection()

    def _send_until_closed(self) -> None:
        while not self._closed:
            if not self._flushes:
                self._wake.acquire(timeout=-1 if self._interval is None else self._interval)
            flushes = [self._flushes.popleft() for _ in range(len(self._flushes))]
            try:
                self._send_waiting(self._queue)
            except Exception as error:  # a bug here or in the log must not end the only thread
                with suppress(Exception):
                    self._fail(f"{type(error).__name__} in the exporter")
            for done in flushes:
                done.release()

    def _send_waiting(self, queue: SpanQueue) -> None:
        while self._may_send(queue) and (request := queue.take()) is not None:
            if self._is_connection_stale:
                self._is_connection_stale = False
                self._drop_connection()
            reply = self._try_to_send(request)
            if reply.outcome in ("busy", "unreachable"):
                queue.put_back(request)
            else:
                queue.release(request)
            self._note(reply, request)

    def _may_send(self, queue: SpanQueue) -> bool:
        if self.breaker.is_open or queue is not self._queue:  # replaced by `reset`
            return False
        return self._interval is not None or time.monotonic() < self._flush_ends

    def _try_to_send(self, request: Request) -> Reply:
        try:
            return self._send(request.body, time.monotonic() + self._send_seconds)
        except Exception as error:
            return Reply("failed", reason=f"{type(error).__name__} in the exporter")

    def _note(self, reply: Reply, request: Request) -> None:
        if reply.outcome == "sent":
            self.breaker.reset()
            self._drop(min(reply.rejected, request.spans), "rejected")
            if self._failing:
                self._failing = ""
                self._log("INFO", "traces are exported again", {"dropped": dict(self.dropped)})
            return
        if reply.outcome in ("refused", "failed"):
            self._drop(request.spans, reply.outcome)
        self._fail(reply.reason, reply.retry_after)

    def _fail(self, reason: str, retry_after: float = 0.0) -> None:
        self.breaker.fail(retry_after)
        if reason != self._failing:
            self._failing = reason
            self._log("WARNING", "traces cannot be exported", {"reason": reason, "dropped": dict(self.dropped)})

    def _drop(self, count: int, reason: str) -> None:
        if count:
            with self._lock:
                self.dropped[reason] += count


_exporters: weakref.WeakSet[Exporter] = weakref.WeakSet()


def _after_fork() -> None:
    for exporter in list(_exporters):
        exporter.start_clean_in_child()


os.register_at_fork(after_in_child=_after_fork)
