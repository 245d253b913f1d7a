"""A model's limits within one process: parallel requests, requests per minute and tokens per minute."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as Waited
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
    nullcontext,
)
from typing import Any, NamedTuple, Protocol
from weakref import WeakValueDictionary

from dspy.utils.exceptions import LMRateLimitError

from dspy_lambda.errors import DeadlineExceeded

_MINUTE = 60.0


class ProcessLimitReached(LMRateLimitError):  # type: ignore[misc]
    """This process's own limit for a model is reached, not the provider's; programs see an ordinary rate limit."""


class LimitSettings(Protocol):
    """A model's limits; None means that there is none."""

    @property
    def max_parallel_requests(self) -> int | None: ...
    @property
    def requests_per_minute(self) -> int | None: ...
    @property
    def tokens_per_minute(self) -> int | None: ...


class _Parallel(NamedTuple):
    max_parallel_requests: int
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None


class ModelLimit:
    """Shared by all calls of a model, on the loop and in threads; first come, first served.

    A call waits for a slot until its deadline. If the wait for the minute's quota would outlast the deadline, it fails
    at once with the seconds until there is room.
    """

    def __init__(self, settings: LimitSettings) -> None:
        self._lock = threading.Lock()
        self._most = math.inf if settings.max_parallel_requests is None else settings.max_parallel_requests
        self._free = self._most
        self._generation = 0
        self._waiting: deque[Future[None]] = deque()
        self._requests_per_minute = settings.requests_per_minute
        self._tokens_per_minute = settings.tokens_per_minute
        self._starts: deque[float] = deque(maxlen=settings.requests_per_minute or 1)
        self._tokens: deque[tuple[float, int]] = deque()

    @contextmanager
    def slot(self, deadline: float | None) -> Iterator[None]:
        """Hold a slot to send one request from a thread. Times are `time.monotonic()`.

        On the loop (a sync LM call in async code) waiting would deadlock: the loop's own tasks may hold all slots, and
        they cannot run while the loop waits. Such a request is sent without a slot, one at a time.

        Raises:
            DeadlineExceeded: No slot was free before the deadline.
            ProcessLimitReached: The minute's quota has no room before the deadline.
        """
        queued, generation = self._enter()
        has_slot = queued is None or self._granted(queued, generation, deadline)
        try:
            time.sleep(self._pause(deadline))
            yield
        finally:
            if has_slot:
                self._release(generation)

    def _granted(self, queued: Future[None], generation: int, deadline: float | None) -> bool:
        """Wait for a slot and return True; return False at once on the loop, which must not wait."""
        if _is_on_loop():
            self._leave(queued, generation)
            return False
        try:
            queued.result(None if deadline is None else max(0.0, deadline - time.monotonic()))
        except (Waited, CancelledError):
            self._leave(queued, generation)
            raise DeadlineExceeded("The deadline passed before the model had a free slot.") from None
        return True

    @asynccontextmanager
    async def aslot(self, deadline: float | None) -> AsyncIterator[None]:
        """Hold a slot on the loop; the call's deadline cancels the wait from outside."""
        queued, generation = self._enter()
        if queued is not None:
            try:
                await asyncio.wrap_future(queued)
            except asyncio.CancelledError:
                self._leave(queued, generation)
                raise
        try:
            if pause := self._pause(deadline):
                await asyncio.sleep(pause)
            yield
        finally:
            self._release(generation)

    def spent(self, tokens: int) -> None:
        """Count an answer's tokens against the minute's quota."""
        if self._tokens_per_minute is not None:
            with self._lock:
                self._tokens.append((time.monotonic(), tokens))

    def abandon(self) -> None:
        """Free all slots: their holders were abandoned, and what they release later is ignored."""
        with self._lock:
            self._generation += 1
            self._free = self._most
            while self._waiting:
                self._waiting.popleft().cancel()

    def _enter(self) -> tuple[Future[None] | None, int]:
        """Take a slot (None) or join the queue (a future); also return the current generation."""
        with self._lock:
            if self._free > 0 and not self._waiting:
                self._free -= 1
                return None, self._generation
            place: Future[None] = Future()
            self._waiting.append(place)
            return place, self._generation

    def _leave(self, place: Future[None], generation: int) -> None:
        """Leave the queue; if a slot was already granted, release it."""
        place.cancel()
        with self._lock:
            if place in self._waiting:
                self._waiting.remove(place)
                return
        if not place.cancelled():
            self._release(generation)

    def _release(self, generation: int) -> None:
        with self._lock:
            if generation != self._generation:
                return
            while self._waiting:
                place = self._waiting.popleft()
                if place.set_running_or_notify_cancel():
                    place.set_result(None)
                    return
            self._free += 1

    def _pause(self, deadline: float | None) -> float:
        """Reserve a start time and return the seconds until the minute's quota has room for it."""
        if self._requests_per_minute is None and self._tokens_per_minute is None:
            return 0.0
        with self._lock:
            now = time.monotonic()
            start = max(now, self._next_request(), self._next_tokens(now))
            if deadline is not None and start >= deadline:
                raise ProcessLimitReached("this process's own limit for the model is reached", retry_after=start - now)
            self._starts.append(start)
        return start - now

    def _next_request(self) -> float:
        if self._requests_per_minute is None or len(self._starts) < self._requests_per_minute:
            return 0.0
        return self._starts[0] + _MINUTE

    def _next_tokens(self, now: float) -> float:
        """Return the time at which enough of the last minute's tokens have expired."""
        if self._tokens_per_minute is None:
            return 0.0
        while self._tokens and self._tokens[0][0] <= now - _MINUTE:
            self._tokens.popleft()
        over = sum(tokens for _, tokens in self._tokens) - self._tokens_per_minute
        for at, tokens in self._tokens:
            if over < 0:
                return 0.0
            over -= tokens
            if over < 0:
                return at + _MINUTE
        return 0.0


def _is_on_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


# Limits of LMs that programs make, by model and connection settings. One without calls has no state worth keeping.
_shared: WeakValueDictionary[tuple[Any, ...], ModelLimit] = WeakValueDictionary()
_sharing = threading.Lock()


def shared_limit(client: tuple[Any, ...], max_parallel_requests: int) -> ModelLimit:
    """Return the limit that all LMs with this model, these connection settings and this maximum share.

    Raises:
        ValueError: The maximum is not a positive integer.
    """
    if type(max_parallel_requests) is not int or max_parallel_requests < 1:
        raise ValueError("max_parallel_requests must be a positive integer")
    key = (*client, max_parallel_requests)
    with _sharing:
        limit = _shared.get(key)
        if limit is None:
            limit = _shared[key] = ModelLimit(_Parallel(max_parallel_requests))
        return limit


def abandon_shared_limits() -> None:
    """Free the slots of abandoned calls in all shared limits."""
    with _sharing:
        limits = list(_shared.values())
    for limit in limits:
        limit.abandon()


def spend(lm: Any, tokens: int) -> None:
    """Count an answer's tokens against the LM's limit, if it has one."""
    limit = getattr(lm, "limit", None)
    if isinstance(limit, ModelLimit):
        limit.spent(tokens)


def _limit_of(lm: Any, call: Any) -> ModelLimit | None:
    """Return the limit of an alias or, without one, of the LM call."""
    for limit in (getattr(lm, "limit", None), getattr(call, "own_limit", None)):
        if isinstance(limit, ModelLimit):
            return limit
    return None


def slot_of(lm: Any, call: Any, deadline: float | None) -> AbstractContextManager[None]:
    """Return a slot of an LM call's limit for a thread, or an empty context if it has no limit."""
    limit = _limit_of(lm, call)
    return nullcontext() if limit is None else limit.slot(deadline)


def aslot_of(lm: Any, call: Any, deadline: float | None) -> AbstractAsyncContextManager[None]:
    """Return a slot of an LM call's limit for the loop, or an empty context if it has no limit."""
    limit = _limit_of(lm, call)
    return nullcontext() if limit is None else limit.aslot(deadline)
