"""What invocations run on: a thread with its event loop and executors, replaced as a whole when a call is stuck."""

from __future__ import annotations

import contextvars
import threading
import time
from _thread import allocate_lock
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dspy_lambda.loop import PersistentLoop
from dspy_lambda.threads import restore_trace_functions, trace_functions

if TYPE_CHECKING:
    import asyncio

    from dspy_lambda.dispatch import Dispatcher


class Job:
    """One piece of work for a runner's thread, and its result."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self._work = work
        # Keeps context variables of the runtime client and the user's wrappers; those that programs set are discarded.
        self._context = contextvars.copy_context()
        self._done = allocate_lock()
        self._done.acquire()
        self._result: Any = None
        self._error: BaseException | None = None

    def run(self) -> None:
        usual = trace_functions()
        try:
            self._result = self._context.run(self._work)
        except BaseException as error:
            self._error = error
        finally:
            restore_trace_functions(usual)
            self._done.release()

    def wait(self, seconds: float) -> bool:
        """Wait for at most this many seconds, and return whether the job is done."""
        return self._done.acquire(timeout=seconds) if seconds > 0 else self._done.acquire(blocking=False)

    def result(self) -> Any:
        """Return the work's result, or raise its exception."""
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None  # avoids a reference cycle between error and traceback
        return self._result


class Runner:
    """Runs one job at a time in a separate thread, so that the main thread can answer when a program does not.

    A loop that runs forever (`run_coroutine_threadsafe`) would cost more per invocation, and Mangum could not run on
    it.

    Args:
        loop: the thread's current event loop.
        dispatcher: holds the program slots and the threads of sync programs.

    Attributes:
        abandoned: whether another runner has replaced this one.
    """

    def __init__(self, loop: PersistentLoop, dispatcher: Dispatcher) -> None:
        self.loop = loop
        self.dispatcher = dispatcher
        self.abandoned = False
        self._job: Job | None = None
        self._wake = allocate_lock()
        self._wake.acquire()
        self._pinged = self._answered = 0
        self.thread = threading.Thread(target=self._serve, name="dspy-lambda", daemon=True)
        self.thread.start()

    def start(self, work: Callable[[], Any]) -> Job:
        """Start a job; the previous one must be done."""
        job = self._job = Job(work)
        self._wake.release()
        return job

    def run(self, work: Callable[[], Any]) -> Any:
        """Run work in the thread and wait for it without a time limit; for init and tests."""
        job = self.start(work)
        while not job.wait(3600):
            pass
        return job.result()

    def use_loop(self) -> asyncio.AbstractEventLoop:
        """Set the thread's current loop: a program's `asyncio.run` clears it, and Mangum asks for it."""
        import asyncio

        asyncio.set_event_loop(self.loop)
        return self.loop

    def ping(self) -> bool:
        """Return whether the loop has answered the last ping; if so, send the next one."""
        responded = self._answered == self._pinged
        if responded:
            self._pinged += 1
            self.loop.call_soon_threadsafe(self._pong, self._pinged)
        return responded

    def _pong(self, number: int) -> None:
        self._answered = number

    def stuck(self) -> list[tuple[str, float]]:
        """Return program and start time (`time.monotonic()`) of each earlier call that is still running."""
        dispatcher, now = self.dispatcher, time.monotonic()
        held = list(dispatcher.running())
        for _, call in self.loop.stuck_tasks():
            held.append((call.program, call.started) if call else ("unknown", now))
        held += [("unknown", started) for started in self.loop.threads.busy]
        return held

    def abandon(self) -> None:
        """Abandon the runner: its thread ends when the code that it is stuck in returns."""
        self.abandoned = True
        self.dispatcher.abandon()
        self.loop.threads.abandon()
        self._job = None
        if self._wake.locked():
            self._wake.release()

    def _serve(self) -> None:
        self.use_loop()
        while True:
            self._wake.acquire()
            # Clear it now: as soon as the job is done, the main thread may set the next one.
            job, self._job = self._job, None
            if job is None:
                break
            job.run()
            del job
            if self.abandoned:
                break
        self.loop.shut_down()
