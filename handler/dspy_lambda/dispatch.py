"""Run one call: await it or thread it, within the program's slots and the invocation's deadline."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterable
from typing import Any

import dspy

from dspy_lambda.call import CALL, Call
from dspy_lambda.config import Server
from dspy_lambda.deadline import DEADLINE
from dspy_lambda.errors import DeadlineExceeded, Overloaded, ProgramFailed
from dspy_lambda.models.registry import ProgramLM
from dspy_lambda.payload import to_outputs
from dspy_lambda.programs.program import Program
from dspy_lambda.threads import Threads
from dspy_lambda.usage import SETTING

_RECENT_CALLS = 20
Recent = defaultdict[str, deque[float]]


def no_durations() -> Recent:
    """The durations of each program's last calls, in seconds."""
    return defaultdict(lambda: deque(maxlen=_RECENT_CALLS))


class Dispatcher:
    """The one way to call a program, whatever the event source.

    Native async programs are awaited on the running loop; the others run in an executor of their own, never the
    loop's default one, which DSPy's async calls hop through and would starve in.

    Args:
        models: the LM of each alias.
        limits: worker threads, slots per program, and how long a caller of `serve` waits for one.
        recent: how long the last calls took; outlives this dispatcher.
    """

    def __init__(self, models: dict[str, ProgramLM], limits: Server, recent: Recent) -> None:
        self.models = models
        self._limits = limits
        self._threads = Threads(limits.sync_worker_threads, "program")
        self._slots: dict[str, asyncio.Semaphore] = {}
        self._recent = recent
        self._running: dict[Call, float] = {}  # in threads

    async def run(self, program: Program, inputs: Any, call: Call) -> None:
        """Call a program with inputs as they came, and settle the call: with its outputs, or with why there are none.

        A sync program's outcome is recorded by its own thread, so that it counts even if the loop stands still. At
        the deadline a program in a thread runs on, and keeps its slot and its thread until it ends: no thread can be
        stopped from outside. Whatever else it would begin (an LM call) is refused by then.
        """
        try:
            await self._run(program, inputs, call)
            if not call.settled:
                raise ProgramFailed("The call ended without an outcome.")
        except BaseException as error:
            call.fail(error)
            if isinstance(error, asyncio.CancelledError):
                raise

    async def _run(self, program: Program, inputs: Any, call: Call) -> None:
        slots = self._slots_of(program)
        waited = call.waited or slots.locked()
        await self._take(slots, call)
        try:
            if _seconds_left(call) == 0:  # a slot that came free when its call was canceled at the deadline
                raise _deadline()
            if waited:
                self._check_time(program, call)
            if call.settled:  # answered already, by the main thread at the deadline
                slots.release()
                return
            work = self._start(program, inputs, call, slots)
        except BaseException:
            slots.release()
            raise
        begin = time.monotonic()
        if await _ended(work, _seconds_left(call)):
            self._recent[program.name].append(time.monotonic() - begin)
            return
        call.fail(_deadline())
        work.cancel()  # a thread's takes effect only while it waits for a worker: then it never starts

    def running(self) -> Iterable[tuple[str, float]]:
        """The calls whose threads have not ended: program and start (`time.monotonic()`)."""
        return [(call.program, started) for call, started in list(self._running.items())]

    def overdue(self) -> dict[str, int]:
        """How many threads calls hold that have been answered already, by program."""
        return dict(Counter(call.program for call in list(self._running) if call.settled))

    def abandon(self) -> None:
        """Give the threads up."""
        self._threads.abandon()

    def usual_seconds(self, program: str) -> float | None:
        """How long the slowest of a program's last calls took; None if there was none."""
        recent = list(self._recent[program])
        return max(recent) if recent else None

    def _check_time(self, program: Program, call: Call) -> None:
        """Start nothing late that even the fastest of the program's last calls would not have finished in time.

        It would only be paid for twice: now in vain, and again when its record comes back. What need not wait for a
        slot always starts: or slow times would never be found to be over.
        """
        recent, left = self._recent[program.name], _seconds_left(call)
        if recent and left is not None and left < min(recent):
            raise DeadlineExceeded("Too little time was left to start.")

    def _slots_of(self, program: Program) -> asyncio.Semaphore:
        slots = self._slots.get(program.name)
        if slots is None:
            slots = self._slots[program.name] = asyncio.Semaphore(self._limits.max_concurrent_per_program)
        return slots

    async def _take(self, slots: asyncio.Semaphore, call: Call) -> None:
        """Take one of the program's `max_concurrent_per_program` slots; first come, first served."""
        left = _seconds_left(call)
        patience = self._limits.queue_timeout_seconds if call.invocation.source == "serve" else None
        try:
            async with asyncio.timeout(min((s for s in (left, patience) if s is not None), default=None)):
                await slots.acquire()
        except TimeoutError:
            if patience is not None and (left is None or patience < left):
                raise Overloaded("All slots of this program are taken.", retry_after=patience) from None
            raise _deadline() from None

    def _start(self, program: Program, inputs: Any, call: Call, slots: asyncio.Semaphore) -> asyncio.Future[None]:
        """Begin a call; its slot is released once it has really ended."""
        loop = asyncio.get_running_loop()
        call.run()
        context = contextvars.copy_context()
        context.run(CALL.set, call)
        context.run(DEADLINE.set, call.invocation.deadline)
        if program.entry.is_async:
            task = loop.create_task(self._await(program, inputs, call), context=context)
            task.add_done_callback(lambda _: slots.release())
            return task
        thread = self._threads.submit(context.run, self._call, program, inputs, call)
        # From the thread's own end, not from its future on the loop, which ends at the deadline.
        thread.add_done_callback(lambda _: loop.call_soon_threadsafe(slots.release))
        return asyncio.wrap_future(thread)

    async def _await(self, program: Program, inputs: Any, call: Call) -> None:
        """A native async call. Reading inputs and writing outputs is the program's own code, too."""
        try:
            with dspy.context(**self._settings(program, call)):
                values = program.schemas.inputs.validate(inputs)
                result = await program.entry.start(program.copy(), values)
                call.succeed(to_outputs(result, call.invocation.answer_limit, program.schemas.result_field))
        except BaseException as error:
            call.fail(error)
        finally:
            call.ended()

    def _call(self, program: Program, inputs: Any, call: Call) -> None:
        """A sync call, in its thread."""
        if call.settled:
            return
        self._running[call] = time.monotonic()
        try:
            with dspy.context(**self._settings(program, call)):
                values = program.schemas.inputs.validate(inputs)
                result = program.copy()(**values)
                call.succeed(to_outputs(result, call.invocation.answer_limit, program.schemas.result_field))
        except BaseException as error:
            call.fail(error)
        finally:
            self._running.pop(call, None)
            call.ended()

    def _settings(self, program: Program, call: Call) -> dict[str, Any]:
        return {
            "lm": self.models[program.model].for_call(call),
            # The call's own, and gone with it; that of the process would only grow. None fails dspy.Refine and BestOfN.
            # Measured: 3.9 KB an LM call of 3 KB, no time.
            "trace": [],
            "disable_history": False,  # the history entry is what tells tokens and cost
            "warn_on_type_mismatch": False,  # inputs are validated already, and the warning prints them
            SETTING: call.usage,
        }


async def _ended(work: asyncio.Future[None], seconds: float | None) -> bool:
    """Whether the work ended in time: answered at the deadline even if the work refuses to end."""
    try:
        await asyncio.wait({work}, timeout=seconds)
    except asyncio.CancelledError:
        work.cancel()
        raise
    if not work.done():
        return False
    if not work.cancelled():
        work.exception()  # nothing is left in it: the call is settled
    return True


def _deadline() -> DeadlineExceeded:
    return DeadlineExceeded("The deadline came before the answer.")


def _seconds_left(call: Call) -> float | None:
    deadline = call.invocation.deadline
    return None if deadline is None else max(0.0, deadline - time.monotonic())
