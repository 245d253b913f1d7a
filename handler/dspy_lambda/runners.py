"""The runner that invocations run on, and those that were given up."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dspy_lambda.dispatch import Dispatcher, Recent
from dspy_lambda.loop import PersistentLoop
from dspy_lambda.process import MOST_THREADS
from dspy_lambda.runner import Runner

if TYPE_CHECKING:
    from dspy_lambda.config import Server
    from dspy_lambda.invocation import Invocation
    from dspy_lambda.models.registry import ProgramLM

_MOST_LOOP_THREADS = 256
_OTHER_THREADS = 30  # the main one, the runner's, those for names and queues, and libraries' own
Log = Callable[[str, str, dict[str, Any]], None]


class Runners:
    """Has one runner at a time: another one when a call of a former invocation still holds a part of it.

    Args:
        make: makes a runner.
        free_slots: called when a runner is given up: what its calls hold is not to be waited for.
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
        """What invocations run on."""
        if self._current is None:
            self._current = self._make()
        return self._current

    @property
    def stuck(self) -> int:
        """How many of the runners that were given up have not come back."""
        return sum(runner.thread.is_alive() for runner in self._abandoned)

    def fresh(self, invocation: Invocation) -> Runner:
        """The runner for an invocation, all of its slots free: what former calls still hold is left to them."""
        held = self.current.stuck()
        if held:
            now = time.monotonic()
            for program, number in Counter(program for program, _ in held).items():
                since = max(now - started for name, started in held if name == program)
                about = {"program": program, "calls": number, "seconds": round(since, 3)}
                self._log("WARNING", "calls of former invocations still run; left to themselves", about)
                invocation.counts["Stuck", program] += number
            self.give_up()
        return self.current

    def give_up(self) -> None:
        """Go on with another thread, loop and executors. Quick: a new thread is only made for the next invocation."""
        given_up = self.current
        given_up.abandon()
        if not logging._lock.acquire(blocking=False):  # type: ignore[attr-defined]
            # Whoever was given up may hold it for ever, and nobody could log or make a loop any more.
            logging._lock = threading.RLock()  # type: ignore[attr-defined]
        else:
            logging._lock.release()  # type: ignore[attr-defined]
        self._abandoned = [runner for runner in [*self._abandoned, given_up] if runner.thread.is_alive()]
        self._free_slots()
        self._current = None


def new_runner(server: Server, models: dict[str, ProgramLM], recent: Recent, log: Log, *, fast: bool) -> Runner:
    """A runner with a loop and a dispatcher of its own.

    Args:
        recent: how long the last calls took, which outlives runners.
        fast: whether the loop runs short work itself that was meant for threads.
    """
    # Behind `asyncio.to_thread`: many, and with those of sync programs below what is used up.
    threads = min(_MOST_LOOP_THREADS, MOST_THREADS - _OTHER_THREADS - server.sync_worker_threads)
    return Runner(PersistentLoop(log, threads=threads, fast=fast), Dispatcher(models, server, recent))
