"""The event loop of an execution environment."""

from __future__ import annotations

import asyncio
import contextvars
import os
import socket
import types
import weakref
from collections.abc import Awaitable, Callable, Generator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from dspy_lambda.call import CALL
from dspy_lambda.dspy_patches.replacements import is_pure
from dspy_lambda.errors import ProgramFailed
from dspy_lambda.telemetry import Log
from dspy_lambda.telemetry.describe import describe
from dspy_lambda.threads import Threads

if TYPE_CHECKING:
    from dspy_lambda.call import Call

Result = TypeVar("Result")
_LAST_SECONDS = 0.1
_NAME_THREADS = 8
_endless: list[asyncio.Task[Any]] = []  # tasks that no exception ends; kept until the process ends


class PersistentLoop(asyncio.SelectorEventLoop):
    """A loop that programs cannot stop, whose tasks they cannot find, and whose name resolution they cannot block.

    In asyncio a SystemExit or KeyboardInterrupt of any task leaves `run_until_complete`, and thus the handler, so the
    whole batch would be lost. This loop keeps running; the exception still reaches whatever awaits the task.

    Its tasks are not in `asyncio.all_tasks()`: a program that cancels all tasks there would cancel the batch and other
    calls.

    Args:
        log: called with level, message and fields for an exception that was never retrieved. It is reported only by
            kind and place, because its text may be private.
        threads: the size of the pool behind `asyncio.to_thread`. Name resolution has a separate pool, so that programs
            that fill theirs do not keep others from the network.
    """

    def __init__(self, log: Log, *, threads: int = 100, fast: bool = True) -> None:
        super().__init__()
        self._log = log
        self._fast = fast
        self._tasks: weakref.WeakKeyDictionary[asyncio.Task[Any], contextvars.Context] = weakref.WeakKeyDictionary()
        self.threads = Threads(threads, "asyncio")
        self._names = Threads(_NAME_THREADS, "getaddrinfo")
        self.set_exception_handler(self._report)

    def create_task(self, coro: Any, *, name: Any = None, context: Any = None, **more: Any) -> asyncio.Task[Any]:
        """Create a task that only this loop knows; `call_of` returns its program call."""
        if self.is_closed():
            coro.close()
            raise RuntimeError("Event loop is closed")
        context = contextvars.copy_context() if context is None else context
        task = asyncio.Task(coro, loop=self, name=name, context=context, **more)
        # https://docs.python.org/3/library/asyncio-extending.html
        asyncio._unregister_task(task)
        self._tasks[task] = context
        return task

    def call_of(self, task: asyncio.Task[Any] | None) -> Call | None:
        """Return the program call in which a task was created."""
        context = None if task is None else self._tasks.get(task)
        return None if context is None else context.get(CALL)

    def run_until_complete(self, future: Awaitable[Result] | Generator[Any, None, Result]) -> Result:
        """Run until the future is done.

        Raises:
            RuntimeError: This loop, or another one in this thread, is already running.
        """
        if self.is_running() or asyncio._get_running_loop() is not None:
            if asyncio.iscoroutine(future):
                future.close()
            raise RuntimeError("An event loop is already running; use await, or call it in a thread.")
        task: asyncio.Future[Result] = asyncio.ensure_future(future, loop=self)  # type: ignore[arg-type]
        while True:
            try:
                return super().run_until_complete(task)
            except (SystemExit, KeyboardInterrupt):
                if task.done():
                    raise
            except RuntimeError:
                # Also raised if a program called `loop.stop()`.
                if task.done() or self.is_closed():
                    raise
            except asyncio.CancelledError:
                # The runtime client would not catch a CancelledError.
                raise ProgramFailed("A program canceled the whole invocation.") from None

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """Run in a thread, or directly if a hop to a thread and back would cost more than the work."""
        if executor is not None:
            return super().run_in_executor(executor, func, *args)
        if not self._fast or args or not is_pure(func):
            # With the call's LM, deadline and log fields, as in any other pool.
            return super().run_in_executor(self.threads, contextvars.copy_context().run, func, *args)
        done = self.create_future()
        try:
            done.set_result(func())
        except Exception as error:
            done.set_exception(error)
        return done

    async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> Any:
        """Resolve a name in threads that programs cannot use."""
        arguments = (host, port, *(options.get(key, 0) for key in ("family", "type", "proto", "flags")))
        return await super().run_in_executor(self._names, socket.getaddrinfo, *arguments)

    def call_soon_threadsafe(self, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        """Schedule a callback from another thread; ignore it if the loop was abandoned.

        Such a thread ended late, and nothing waits for it.
        """
        try:
            return super().call_soon_threadsafe(*args, **kwargs)
        except RuntimeError:
            if not self.is_closed():
                raise
            return None

    def end_invocation(self) -> list[str]:
        """Cancel the tasks that programs left running, wait a moment, and return their names.

        Otherwise they would be frozen with the environment and continue during another invocation.
        """
        if not self._tasks:
            return []
        tasks = self.unfinished()
        if not tasks:
            return []
        # A task that is not a coroutine is the loop's cleanup of an async generator; let it finish.
        left = {task: name for task in tasks if (name := _name(task)) is not None}
        for task in left:
            task.cancel()
        self.run_until_complete(asyncio.wait(tasks, timeout=_LAST_SECONDS))
        return sorted(left.values())

    def unfinished(self) -> list[asyncio.Task[Any]]:
        """Return the tasks of this loop that have not ended."""
        return [task for task in list(self._tasks) if not task.done()]

    def stuck_tasks(self) -> list[tuple[asyncio.Task[Any], Call | None]]:
        """Return programs' tasks that did not end when canceled, without libraries' own workers."""
        return [(task, self.call_of(task)) for task in self.unfinished() if _name(task) is not None]

    def shut_down(self) -> None:
        """Close the loop and everything on it. Call it in the loop's own thread, or after that thread has ended."""
        for pool in (self.threads, self._names):
            pool.abandon()
        if self.is_closed():
            return
        # Otherwise their sockets stay open until they are garbage collected.
        for transport in list(getattr(self, "_transports", {}).values()):
            transport.abort()
        self.set_exception_handler(lambda *_: None)  # silences "Task was destroyed but it is pending"
        for task in self.unfinished():
            task.cancel()
        for last in (self.stop, self._close_coroutines):
            with suppress(BaseException):  # from a program's callback; the loop is being closed anyway
                self.call_soon(last)
                self.run_forever()
        self.close()

    def _close_coroutines(self) -> None:
        """Close coroutines that ignored their cancellation, each in its own context, as its cleanup requires.

        Runs on the running loop: without one, a coroutine that ignores this, too, and sleeps again would fail and retry
        forever. For the same reason such coroutines are not left to the garbage collector.
        """
        self.stop()
        for task in self.unfinished():
            coroutine = task.get_coro()
            if isinstance(coroutine, types.CoroutineType):
                with suppress(BaseException):
                    self._tasks[task].run(coroutine.close)
                if coroutine.cr_frame is not None:
                    _endless.append(task)

    def _report(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self._log("ERROR", "unhandled exception in a background task", describe(error) if error is not None else {})


def _name(task: asyncio.Task[Any]) -> str | None:
    """Return the name of a task that a program started; None for a library's task.

    LiteLLM keeps a worker running, which it does not restart if it is canceled.
    """
    coroutine = task.get_coro()
    if not isinstance(coroutine, types.CoroutineType) or f"{os.sep}litellm{os.sep}" in coroutine.cr_code.co_filename:
        return None
    return coroutine.__qualname__
