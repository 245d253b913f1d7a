"""Run one call: await it or thread it, within the program's width and the invocation's deadline."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dspy

from handler.config import Server
from handler.errors import DeadlineExceeded, Overloaded, ProgramFailed
from handler.payload import to_outputs
from handler.programs import Program
from handler.telemetry import Call
from handler.telemetry.usage import SETTING


class Dispatcher:
    """The one way to call a program, whatever the event source.

    Native async programs are awaited on the running loop; the others run in an executor of their own, never the
    loop's default one, which DSPy's async calls hop through and would starve in.

    Args:
        models: the LM of each alias.
        limits: worker threads, width per program, and how long a caller of `serve` waits for its turn.
    """

    def __init__(self, models: dict[str, dspy.LM], limits: Server) -> None:
        self._models = models
        self._limits = limits
        self._executor = ThreadPoolExecutor(limits.sync_worker_threads, thread_name_prefix="program")
        self._turns: dict[str, asyncio.Semaphore] = {}

    async def run(self, program: Program, inputs: Any, call: Call) -> dict[str, Any]:
        """Call a program with inputs as they came; the outputs are ready for JSON.

        Raises:
            InvalidInput: the inputs do not fit the program.
            Overloaded: no turn within `server.queue_timeout_seconds` (source `serve` only).
            DeadlineExceeded: the invocation's deadline came first. A program in a thread runs on, and keeps its
                slot until it ends: no thread can be stopped from outside.
            Exception: whatever the program raised, which the call's own exit turns into a CallError.
        """
        values = program.schemas.inputs.validate(inputs)
        try:
            async with asyncio.timeout_at(call.invocation.deadline) as deadline:
                turns = await self._turn(program, call)
                result = await self._start(program, values, call, turns.release)
        except TimeoutError:
            if not deadline.expired():
                raise  # the program's own
            raise DeadlineExceeded("The deadline came before the answer.") from None
        return to_outputs(result)

    async def _turn(self, program: Program, call: Call) -> asyncio.Semaphore:
        """Take one of the program's `max_concurrent_per_program` turns; first come, first served."""
        turns = self._turns.get(program.name)
        if turns is None:
            turns = self._turns[program.name] = asyncio.Semaphore(self._limits.max_concurrent_per_program)
        patience = self._limits.queue_timeout_seconds if call.invocation.source == "serve" else None
        try:
            async with asyncio.timeout(patience):
                await turns.acquire()
        except TimeoutError:
            raise Overloaded("All turns of this program are taken.", retry_after=patience) from None
        return turns

    async def _start(self, program: Program, values: dict[str, Any], call: Call, done: Callable[[], None]) -> Any:
        """The program's result, with this call's own copy of program, LM and settings around it."""
        settings = {
            "lm": self._models[program.model].copy(),
            "trace": None,  # grows by every call otherwise, and nothing here reads it
            "disable_history": False,  # the history entry is what tells tokens and cost
            "warn_on_type_mismatch": False,  # inputs are validated already, and the warning prints them
            SETTING: call.usage,
        }
        instance = program.copy()
        with dspy.context(**settings):
            if not program.entry.is_async:
                context = contextvars.copy_context()
                return await self._in_thread(lambda: context.run(_call, instance, values), done)
            try:
                return await _own_cancellation(program.entry.start(instance, values))
            finally:
                done()

    async def _in_thread(self, work: Callable[[], Any], done: Callable[[], None]) -> Any:
        thread = self._executor.submit(work)
        ended = asyncio.wrap_future(thread)
        ended.add_done_callback(lambda _: done())
        try:
            return await asyncio.shield(ended)
        except asyncio.CancelledError:
            thread.cancel()  # takes effect only while it still waits for a worker: then it never starts
            raise


def _call(instance: dspy.Module, values: dict[str, Any]) -> Any:
    try:
        return instance(**values)
    except (SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError) as error:
        raise ProgramFailed("The program tried to end the process.") from error


async def _own_cancellation(work: Awaitable[Any]) -> Any:
    """Await a program; a CancelledError or SystemExit that is its own doing is its failure, not this task's end."""
    try:
        return await work
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise ProgramFailed("The program cancelled itself.") from error
    except (SystemExit, KeyboardInterrupt, GeneratorExit) as error:
        raise ProgramFailed("The program tried to end the process.") from error
