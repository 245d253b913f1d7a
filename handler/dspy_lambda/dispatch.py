"""Run one call: await it or thread it, within the program's width and the invocation's deadline."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections import defaultdict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dspy

from dspy_lambda.config import Server
from dspy_lambda.errors import DeadlineExceeded, Overloaded, ProgramFailed
from dspy_lambda.models import ProgramLM
from dspy_lambda.payload import to_outputs
from dspy_lambda.programs import Program
from dspy_lambda.telemetry import Call
from dspy_lambda.telemetry.usage import SETTING

_RECENT_CALLS = 20


class Dispatcher:
    """The one way to call a program, whatever the event source.

    Native async programs are awaited on the running loop; the others run in an executor of their own, never the
    loop's default one, which DSPy's async calls hop through and would starve in.

    Args:
        models: the LM of each alias.
        limits: worker threads, width per program, and how long a caller of `serve` waits for its turn.
    """

    def __init__(self, models: dict[str, ProgramLM], limits: Server) -> None:
        self.models = models
        self._limits = limits
        self._executor = ThreadPoolExecutor(limits.sync_worker_threads, thread_name_prefix="program")
        self._turns: dict[str, asyncio.Semaphore] = {}
        self._recent: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=_RECENT_CALLS))

    async def run(self, program: Program, inputs: Any, call: Call) -> dict[str, Any]:
        """Call a program with inputs as they came; the outputs are ready for JSON.

        Raises:
            InvalidInput: the inputs do not fit the program.
            Overloaded: no turn within `server.queue_timeout_seconds` (source `serve` only).
            DeadlineExceeded: the invocation's deadline came first. A program in a thread runs on, and keeps its turn
                and its thread until it ends: no thread can be stopped from outside.
            Exception: whatever the program raised, which the call's own exit turns into a CallError.
        """
        values = program.schemas.inputs.validate(inputs)
        turns = self._turns_of(program)
        late = call.late or turns.locked()
        await self._take(turns, call)
        try:
            if late:
                self._check_time(program, call)
            work = self._start(program, values, call, turns.release)
        except BaseException:
            turns.release()
            raise
        begin = time.monotonic()
        result = await _result(work, _seconds_left(call))
        self._recent[program.name].append(time.monotonic() - begin)
        return to_outputs(result)

    def _check_time(self, program: Program, call: Call) -> None:
        """Start nothing late that even the fastest of the program's last calls would not have finished in time.

        It would only be paid for twice: now in vain, and again when its record comes back. What need not wait for its
        turn always starts: or slow times would never be found to be over.
        """
        recent, left = self._recent[program.name], _seconds_left(call)
        if recent and left is not None and left < min(recent):
            raise DeadlineExceeded("Too little time was left to start.")

    def _turns_of(self, program: Program) -> asyncio.Semaphore:
        turns = self._turns.get(program.name)
        if turns is None:
            turns = self._turns[program.name] = asyncio.Semaphore(self._limits.max_concurrent_per_program)
        return turns

    async def _take(self, turns: asyncio.Semaphore, call: Call) -> None:
        """Take one of the program's `max_concurrent_per_program` turns; first come, first served."""
        left = _seconds_left(call)
        patience = self._limits.queue_timeout_seconds if call.invocation.source == "serve" else None
        try:
            async with asyncio.timeout(min((s for s in (left, patience) if s is not None), default=None)):
                await turns.acquire()
        except TimeoutError:
            if patience is not None and (left is None or patience < left):
                raise Overloaded("All turns of this program are taken.", retry_after=patience) from None
            raise _deadline() from None

    def _start(
        self, program: Program, values: dict[str, Any], call: Call, done: Callable[[], None]
    ) -> asyncio.Future[Any]:
        """Begin a call with its own copy of program, LM and settings; `done` is called once it has really ended."""
        settings = {
            "lm": self.models[program.model].for_call(call),
            "trace": None,  # grows by every call otherwise, and nothing here reads it
            "disable_history": False,  # the history entry is what tells tokens and cost
            "warn_on_type_mismatch": False,  # inputs are validated already, and the warning prints them
            SETTING: call.usage,
        }
        instance = program.copy()
        loop = asyncio.get_running_loop()
        with dspy.context(**settings):
            if program.entry.is_async:
                task = loop.create_task(program.entry.start(instance, values))
                task.add_done_callback(lambda _: done())
                return task
            context = contextvars.copy_context()
        thread = self._executor.submit(context.run, _call, instance, values)
        # From the thread's own end, not from its future on the loop, which ends at the deadline.
        thread.add_done_callback(lambda _: loop.call_soon_threadsafe(done))
        return asyncio.wrap_future(thread)


async def _result(work: asyncio.Future[Any], seconds: float | None) -> Any:
    """What the work comes to, if it comes in time: answered at the deadline even if the work refuses to end."""
    try:
        await asyncio.wait({work}, timeout=seconds)
    except asyncio.CancelledError:
        work.cancel()
        raise
    if not work.done():
        work.add_done_callback(_fetch)
        work.cancel()  # a thread's takes effect only while it waits for a worker: then it never starts
        raise _deadline()
    try:
        return work.result()
    except (asyncio.CancelledError, SystemExit, KeyboardInterrupt, GeneratorExit) as error:
        raise ProgramFailed("The program tried to end the process.") from error


def _fetch(late: asyncio.Future[Any]) -> None:
    """A late failure is nobody's any more; unfetched, asyncio would log it with its text."""
    if not late.cancelled():
        late.exception()


def _deadline() -> DeadlineExceeded:
    return DeadlineExceeded("The deadline came before the answer.")


def _seconds_left(call: Call) -> float | None:
    deadline = call.invocation.deadline
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def _call(instance: dspy.Module, values: dict[str, Any]) -> Any:
    try:
        return instance(**values)
    except StopIteration as error:
        # No future can hold one: it would never end.
        raise ProgramFailed("The program raised StopIteration.") from error
