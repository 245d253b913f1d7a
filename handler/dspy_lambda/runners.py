"""The current runner, and the abandoned ones."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from dspy_lambda.dispatch import Dispatcher, Recent
from dspy_lambda.loop import PersistentLoop
from dspy_lambda.process import MAX_THREADS
from dspy_lambda.runner import Runner
from dspy_lambda.telemetry import Log

if TYPE_CHECKING:
    from dspy_lambda.config import Server
    from dspy_lambda.invocation import Invocation
    from dspy_lambda.models.registry import ProgramLM

_MAX_LOOP_THREADS = 256
_OTHER_THREADS = 30  # the main one, the runner's, those for names and queues, and libraries' own


class Runners:
    """Keeps one current runner, and replaces it if a call of an earlier invocation is still running on it.

    Args:
        make: creates a runner.
        free_slots: called when a runner is abandoned, to free the slots that its calls hold.
        log: called with level, message and fields.
    """

    def __init__(
        self,
        make: Callable[[], Runner],
        free_slots: Callable[[], None],
        log: Log,
    ) -> None:
        self._make = make
        self._free_slots = free_slots
        self._log = log
        self._abandoned: list[Runner] = []
        self._current: Runner | None = make()

    @property
    def current(self) -> Runner:
        """The runner for invocations."""
        if self._current is None:
            self._current = self._make()
        return self._current

    @property
    def stuck(self) -> int:
        """The number of abandoned runners whose threads have not ended."""
        return sum(runner.thread.is_alive() for runner in self._abandoned)

    def fresh(self, invocation: Invocation) -> Runner:
        """Return a runner with all slots free, abandoning the current one if earlier calls are still running on it."""
        held = self.current.stuck()
        if held:
            now = time.monotonic()
            for program, number in Counter(program for program, _ in held).items():
                since = max(now - started for name, started in held if name == program)
                about = {"program": program, "calls": number, "seconds": round(since, 3)}
                self._log("WARNING", "abandoned calls of earlier invocations that are still running", about)
                invocation.counts["Stuck", program] += number
            self.abandon_current()
        return self.current

    def abandon_current(self) -> None:
        """Abandon the current runner. This is fast: the next invocation creates the new thread, loop and executors."""
        given_up = self.current
        given_up.abandon()
        if not logging._lock.acquire(blocking=False):  # type: ignore[attr-defined]
            # An abandoned thread may hold it forever, and then no thread could log or create a loop.
            logging._lock = threading.RLock()  # type: ignore[attr-defined]
        else:
            logging._lock.release()  # type: ignore[attr-defined]
        self._abandoned = [runner for runner in [*self._abandoned, given_up] if runner.thread.is_alive()]
        self._free_slots()
        self._current = None


def new_runner(server: Server, models: dict[str, ProgramLM], recent: Recent, log: Log, *, fast: bool) -> Runner:
    """Create a runner with a new loop and dispatcher.

    Args:
        recent: durations of recent calls, which outlive runners.
        fast: whether the loop itself runs short work that was meant for threads.
    """
    # For `asyncio.to_thread`: many, but together with sync programs' threads below MAX_THREADS.
    threads = min(_MAX_LOOP_THREADS, MAX_THREADS - _OTHER_THREADS - server.sync_worker_threads)
    return Runner(PersistentLoop(log, threads=threads, fast=fast), Dispatcher(models, server, recent))
