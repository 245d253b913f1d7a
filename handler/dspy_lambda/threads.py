"""A bounded thread pool that can be abandoned as a whole, including stuck threads."""

from __future__ import annotations

import itertools
import queue
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

TraceFunctions = tuple[Any, Any]
_Work = tuple[Future[Any], Callable[..., Any], tuple[Any, ...]]


def trace_functions() -> TraceFunctions:
    """Return this thread's trace and profile functions, as set by a debugger, a coverage tool or a program."""
    return sys.gettrace(), sys.getprofile()


def restore_trace_functions(usual: TraceFunctions) -> None:
    """Remove trace functions that a program left in this thread: they would observe later calls there."""
    if sys.gettrace() is not usual[0] or sys.getprofile() is not usual[1]:
        sys.setprofile(usual[1])
        sys.settrace(usual[0])


class Threads(Executor):
    """Runs functions in daemon threads, at most `size` at once.

    Unlike `ThreadPoolExecutor`, whose threads the interpreter joins at exit, a stuck thread does not keep `serve` from
    exiting; and this pool knows which of its threads are busy.

    Args:
        size: the maximum number of threads; each starts when it is first needed.
        name: the prefix of the threads' names.
    """

    def __init__(self, size: int, name: str) -> None:
        self._size = size
        self._name = name
        self._count = 0
        self._numbers = itertools.count()
        self._idle = threading.Semaphore(0)
        self._queue: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._abandoned = False
        self._running: dict[Future[Any], float] = {}
        self._hooks = threading.gettrace(), threading.getprofile()

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run a function in a thread.

        Raises:
            RuntimeError: The pool was abandoned.
        """
        if self._abandoned:
            raise RuntimeError("this thread pool has been abandoned")
        if kwargs:
            raise TypeError("bind keyword arguments with functools.partial")
        future: Future[Any] = Future()
        self._queue.put((future, function, args))
        if not self._idle.acquire(blocking=False) and self._count < self._size:
            self._count += 1
            name = f"{self._name}_{next(self._numbers)}"
            try:
                threading.Thread(target=self._work, name=name, daemon=True).start()
            except BaseException:  # the thread limit is reached: rejected work must not run later
                self._count -= 1
                future.cancel()
                raise
        return future

    @property
    def busy(self) -> list[float]:
        """Start times (`time.monotonic()`) of the functions that are still running."""
        return list(self._running.values())

    def abandon(self) -> None:
        """Accept no more work, cancel what is queued, and let each thread end as soon as it is free."""
        self._abandoned = True
        while True:
            try:
                waiting = self._queue.get_nowait()
            except queue.Empty:
                break
            if waiting is not None:
                waiting[0].cancel()
        for _ in range(self._count):
            self._queue.put(None)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Abandon the pool without waiting for any thread."""
        self.abandon()

    def _next(self) -> _Work | None:
        while True:
            try:
                return self._queue.get()
            except BaseException:  # noqa: S112 - an exception that a program sent to the thread after its answer
                continue

    def _work(self) -> None:
        # A trace function that a program set for new threads must not become this thread's default.
        usual = trace_functions() if (threading.gettrace(), threading.getprofile()) == self._hooks else (None, None)
        restore_trace_functions(usual)
        while (item := self._next()) is not None:
            future, function, args = item
            if future.set_running_or_notify_cancel():
                self._running[future] = time.monotonic()
                _run(future, function, args, self._running)
                restore_trace_functions(usual)
            del item, future, function, args  # otherwise an idle thread keeps the last call's values alive
            self._idle.release()


def _run(
    future: Future[Any], function: Callable[..., Any], args: tuple[Any, ...], running: dict[Future[Any], float]
) -> None:
    try:
        result = function(*args)
    except StopIteration as error:
        # An asyncio future cannot hold StopIteration: awaiting it would never return.
        failed = RuntimeError("a function in a thread raised StopIteration")
        failed.__cause__ = error
        running.pop(future)
        future.set_exception(failed)
    except BaseException as error:
        running.pop(future)
        future.set_exception(error)
    else:
        # Before the result is visible, so that anyone who sees it finds the thread free.
        running.pop(future)
        future.set_result(result)
