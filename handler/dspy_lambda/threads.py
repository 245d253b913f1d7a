"""A bounded pool of threads that can be given up as a whole, stuck threads included."""

from __future__ import annotations

import itertools
import queue
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

Spies = tuple[Any, Any]
_Work = tuple[Future[Any], Callable[..., Any], tuple[Any, ...]]


def spies() -> Spies:
    """This thread's trace and profile function: what a debugger, a coverage tool or a program set."""
    return sys.gettrace(), sys.getprofile()


def put_back_spies(usual: Spies) -> None:
    """Take off what a program left in this thread: it would read what later calls do there."""
    if sys.gettrace() is not usual[0] or sys.getprofile() is not usual[1]:
        sys.setprofile(usual[1])
        sys.settrace(usual[0])


class Threads(Executor):
    """Runs functions in daemon threads, at most `size` at once.

    Not `ThreadPoolExecutor`: the interpreter waits for its threads at exit, so one that is stuck would keep `serve`
    from ending, and it cannot tell which of them are busy.

    Args:
        size: the most threads; each starts when it is first needed.
        name: what the threads' names begin with.
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
            RuntimeError: the pool was given up.
        """
        if self._abandoned:
            raise RuntimeError("this execution environment has moved on to other threads")
        if kwargs:
            raise TypeError("bind keyword arguments with functools.partial")
        future: Future[Any] = Future()
        self._queue.put((future, function, args))
        if not self._idle.acquire(blocking=False) and self._count < self._size:
            self._count += 1
            name = f"{self._name}_{next(self._numbers)}"
            try:
                threading.Thread(target=self._work, name=name, daemon=True).start()
            except BaseException:  # there are too many: refused work is not to run later
                self._count -= 1
                future.cancel()
                raise
        return future

    @property
    def busy(self) -> list[float]:
        """When each function that still runs was started, by `time.monotonic()`."""
        return list(self._running.values())

    def abandon(self) -> None:
        """Take no more work, cancel what waits, and let each thread end as soon as it is free."""
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
        """Give the pool up; no thread is waited for."""
        self.abandon()

    def _next(self) -> _Work | None:
        while True:
            try:
                return self._queue.get()
            except BaseException:  # noqa: S112 - one that a program sent to the thread, after its answer
                continue

    def _work(self) -> None:
        # What a program had set for new threads is not usual in any.
        usual = spies() if (threading.gettrace(), threading.getprofile()) == self._hooks else (None, None)
        put_back_spies(usual)
        while (item := self._next()) is not None:
            future, function, args = item
            if future.set_running_or_notify_cancel():
                self._running[future] = time.monotonic()
                _run(future, function, args, self._running)
                put_back_spies(usual)
            del item, future, function, args  # or an idle thread would keep the last call's values alive
            self._idle.release()


def _run(
    future: Future[Any], function: Callable[..., Any], args: tuple[Any, ...], running: dict[Future[Any], float]
) -> None:
    try:
        result = function(*args)
    except StopIteration as error:
        # No asyncio future can hold one: whoever awaits it would wait for ever.
        failed = RuntimeError("a function in a thread raised StopIteration")
        failed.__cause__ = error
        running.pop(future)
        future.set_exception(failed)
    except BaseException as error:
        running.pop(future)
        future.set_exception(error)
    else:
        # Before anyone can see that it is done: who looks then finds the thread free.
        running.pop(future)
        future.set_result(result)
