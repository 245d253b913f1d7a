"""Run one call, on the loop or in a thread, within the program's slots and the invocation's deadline."""

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
from dspy_lambda.config.schema import AdapterName
from dspy_lambda.deadline import DEADLINE
from dspy_lambda.dspy_patches.insides import usage_setting
from dspy_lambda.errors import DeadlineExceeded, Overloaded, ProgramFailed, cut_off
from dspy_lambda.models.registry import ProgramLM
from dspy_lambda.payload import to_outputs
from dspy_lambda.programs.program import Program
from dspy_lambda.telemetry.traces.spans import SPAN
from dspy_lambda.threads import Threads

_RECENT_CALLS = 20
Recent = defaultdict[str, deque[float]]


def new_durations() -> Recent:
    """Create the record of each program's most recent call durations, in seconds."""
    return defaultdict(lambda: deque(maxlen=_RECENT_CALLS))


class Dispatcher:
    """Calls programs for every event source.

    Native async programs are awaited on the running loop. Sync programs run in a separate executor and never in the
    loop's default one: DSPy's async calls use that and would starve.

    Args:
        models: the LM of each alias.
        limits: worker threads, slots per program, and how long a caller of `serve` waits for one.
        recent: durations of recent calls; outlives this dispatcher.
    """

    def __init__(self, models: dict[str, ProgramLM], limits: Server, recent: Recent) -> None:
        self.models = models
        self._limits = limits
        self._threads = Threads(limits.sync_worker_threads, "program")
        self._slots: dict[str, asyncio.Semaphore] = {}
        self._recent = recent
        self._running: dict[Call, float] = {}  # in threads

    async def run(self, program: Program, inputs: Any, call: Call) -> None:
        """Call a program with unvalidated inputs, and settle the call with its outputs or its error.

        A sync program's thread records the outcome itself, so that it counts even if the loop is blocked. A thread
        cannot be stopped from outside: past the deadline it keeps its slot until it ends, but any LM call that it
        starts is refused.
        """
        call.inputs = inputs
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
            if _seconds_left(call) == 0:  # the slot was released by a call that was canceled at the deadline
                raise cut_off()
            if waited:
                self._check_time(program, call)
            if call.settled:  # the main thread answered it at the deadline
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
        call.fail(cut_off())
        work.cancel()  # work for a thread is canceled only while it still waits for one

    def running(self) -> Iterable[tuple[str, float]]:
        """Return the program and start time (`time.monotonic()`) of each call whose thread is still running."""
        return [(call.program, started) for call, started in list(self._running.items())]

    def overdue(self) -> dict[str, int]:
        """Count, by program, the threads whose calls have already been answered."""
        return dict(Counter(call.program for call in list(self._running) if call.settled))

    def abandon(self) -> None:
        """Abandon the threads."""
        self._threads.abandon()

    def usual_seconds(self, program: str) -> float | None:
        """Return the duration of the slowest of a program's recent calls, or None if there are none."""
        recent = list(self._recent[program])
        return max(recent) if recent else None

    def _check_time(self, program: Program, call: Call) -> None:
        """Refuse a call if even the program's fastest recent call would not have finished in the time left.

        It would be paid for twice: now for nothing, and again when its record is retried. Calls that did not wait for
        a slot always start; otherwise a slow period would never be seen to end.
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
            raise cut_off() from None

    def _start(self, program: Program, inputs: Any, call: Call, slots: asyncio.Semaphore) -> asyncio.Future[None]:
        """Start a call; its slot is released when the program has actually ended."""
        loop = asyncio.get_running_loop()
        call.run()
        context = contextvars.copy_context()
        context.run(CALL.set, call)
        context.run(DEADLINE.set, call.invocation.deadline)
        if call.span is not None:
            context.run(SPAN.set, call.span)
        if program.entry.is_async:
            task = loop.create_task(self._await(program, inputs, call), context=context)
            task.add_done_callback(lambda _: slots.release())
            return task
        thread = self._threads.submit(context.run, self._call, program, inputs, call)
        # When the thread ends: its future on the loop already ends at the deadline.
        thread.add_done_callback(lambda _: loop.call_soon_threadsafe(slots.release))
        return asyncio.wrap_future(thread)

    async def _await(self, program: Program, inputs: Any, call: Call) -> None:
        """Run a native async call. Validating inputs and serializing outputs may run the program's code, too."""
        try:
            with dspy.context(**self._settings(program, call)):
                values = call.inputs = program.schemas.inputs.validate(inputs)
                instance = program.copy(self._predictor_lms(program, call))
                result = call.result = await program.entry.start(instance, values)
                call.succeed(to_outputs(result, call.invocation.answer_limit, program.schemas.result_field))
        except BaseException as error:
            call.fail(error)
        finally:
            call.ended()

    def _call(self, program: Program, inputs: Any, call: Call) -> None:
        """Run a sync call in its thread."""
        if call.settled:
            return
        self._running[call] = time.monotonic()
        try:
            with dspy.context(**self._settings(program, call)):
                values = call.inputs = program.schemas.inputs.validate(inputs)
                result = call.result = program.copy(self._predictor_lms(program, call))(**values)
                call.succeed(to_outputs(result, call.invocation.answer_limit, program.schemas.result_field))
        except BaseException as error:
            call.fail(error)
        finally:
            self._running.pop(call, None)
            call.ended()

    def _predictor_lms(self, program: Program, call: Call) -> dict[int, ProgramLM]:
        """Return the call's LM of each predictor with a model of its own: one for each alias, as DSPy compares LMs."""
        lms = {alias: self.models[alias].for_call(call) for alias in set(program.predictor_models.values())}
        return {key: lms[alias] for key, alias in program.predictor_models.items()}

    def _settings(self, program: Program, call: Call) -> dict[str, Any]:
        lm = self.models[program.model].for_call(call)
        return {
            "lm": lm,
            **({} if program.adapter is None else _adapter(program.adapter, lm)),
            # One per call, because a process-wide trace would only grow; dspy.Refine and BestOfN fail with None.
            # Measured: 3.9 KB per LM call of 3 KB, no measurable time.
            "trace": [],
            "disable_history": False,  # tokens and cost are read from the history entry
            "warn_on_type_mismatch": False,  # inputs are validated already, and the warning prints them
            **usage_setting(call.usage),
        }


async def _ended(work: asyncio.Future[None], seconds: float | None) -> bool:
    """Wait for the work and return whether it ended in time; returns at the deadline even if the work ignores it."""
    try:
        await asyncio.wait({work}, timeout=seconds)
    except asyncio.CancelledError:
        work.cancel()
        raise
    if not work.done():
        return False
    if not work.cancelled():
        work.exception()  # mark it as retrieved: the call is already settled
    return True


def _seconds_left(call: Call) -> float | None:
    deadline = call.invocation.deadline
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def _adapter(name: AdapterName, lm: ProgramLM) -> dict[str, Any]:
    from dspy_lambda.models.adapters import adapter_of

    return {"adapter": adapter_of(name, lm)}
