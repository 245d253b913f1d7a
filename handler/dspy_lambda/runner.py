"""What invocations run on: one thread, with the event loop, the executors and the application, replaced as a whole."""

from __future__ import annotations

import contextvars
import threading
import time
from _thread import allocate_lock
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dspy_lambda.loop import PersistentLoop
from dspy_lambda.threads import put_back_spies, spies

if TYPE_CHECKING:
    import asyncio

    from dspy_lambda.dispatch import Dispatcher


class Job:
    """One piece of work for a runner's thread, and what came of it."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self._work = work
        # What the runtime client and the user's own wrappers set is carried along; what programs set stays behind.
        self._context = contextvars.copy_context()
        self._done = allocate_lock()
        self._done.acquire()
        self._result: Any = None
        self._error: BaseException | None = None

    def run(self) -> None:
        usual = spies()
        try:
            self._result = self._context.run(self._work)
        except BaseException as error:
            self._error = error
        finally:
            put_back_spies(usual)
            self._done.release()

    def wait(self, seconds: float) -> bool:
        """Whether it is done; waits for at most that long."""
        return self._done.acquire(timeout=seconds) if seconds > 0 else self._done.acquire(blocking=False)

    def result(self) -> Any:
        """What the work returned; raises what it raised."""
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None  # or error and traceback would hold each other
        return self._result


class Runner:
    """Runs one job at a time in a thread of its own, so that the main thread can answer when a program does not.

    A loop that runs for ever (`run_coroutine_threadsafe`) would cost more for each invocation, and Mangum could not
    be called on it.

    Args:
        loop: the loop that is the current one in the thread.
        dispatcher: holds the program slots and the threads of sync programs.

    Attributes:
        abandoned: whether another runner has taken this one's place.
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
        """Begin a job; the one before must be done."""
        job = self._job = Job(work)
        self._wake.release()
        return job

    def run(self, work: Callable[[], Any]) -> Any:
        """Do something in the thread and wait for it, however long it takes: what is done at init, and tests."""
        job = self.start(work)
        while not job.wait(3600):
            pass
        return job.result()

    def use_loop(self) -> asyncio.AbstractEventLoop:
        """Make the loop the thread's current one: a program's `asyncio.run` leaves none behind, and Mangum asks."""
        import asyncio

        asyncio.set_event_loop(self.loop)
        return self.loop

    def ping(self) -> bool:
        """Whether the loop has come round since the last ping; leaves the next one, if so."""
        responded = self._answered == self._pinged
        if responded:
            self._pinged += 1
            self.loop.call_soon_threadsafe(self._pong, self._pinged)
        return responded

    def _pong(self, number: int) -> None:
        self._answered = number

    def stuck(self) -> list[tuple[str, float]]:
        """What former calls still hold, as program and start (`time.monotonic()`)."""
        dispatcher, now = self.dispatcher, time.monotonic()
        held = list(dispatcher.running())
        for _, call in self.loop.stuck_tasks():
            held.append((call.program, call.started) if call else ("unknown", now))
        held += [("unknown", started) for started in self.loop.threads.busy]
        return held

    def abandon(self) -> None:
        """Leave it to itself: its thread ends when it comes back from what it is stuck in."""
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
            # Taken at once: as soon as it is done the main thread may leave the next one there.
            job, self._job = self._job, None
            if job is None:
                break
            job.run()
            del job
            if self.abandoned:
                break
        self.loop.give_up()
