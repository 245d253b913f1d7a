"""The one event loop of an execution environment."""

from __future__ import annotations

import asyncio
import os
import types
from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeVar

from dspy_lambda.dspy_patches import is_pure
from dspy_lambda.errors import ProgramFailed

Result = TypeVar("Result")
_LAST_SECONDS = 0.1


class PersistentLoop(asyncio.SelectorEventLoop):
    """A loop that a program cannot end.

    asyncio lets a SystemExit or KeyboardInterrupt of any task out of `run_until_complete`, past everything that waits
    for the task, and with it out of the handler: the whole batch would be lost. Here the loop is run on; the
    exception still reaches whoever awaits the task.

    A task's failure that nobody fetched is reported by its kind and place only: its text may be private.
    """

    def __init__(self, log: Any, *, fast: bool = True) -> None:
        super().__init__()
        self._log = log
        self._fast = fast
        self.set_exception_handler(self._report)

    def run_until_complete(self, future: Awaitable[Result] | Generator[Any, None, Result]) -> Result:
        """Run until the future is done."""
        task: asyncio.Future[Result] = asyncio.ensure_future(future, loop=self)  # type: ignore[arg-type]
        while True:
            try:
                return super().run_until_complete(task)
            except (SystemExit, KeyboardInterrupt):
                if task.done():
                    raise
            except RuntimeError:
                # A program's `loop.stop()` lands here, too.
                if task.done() or self.is_closed():
                    raise
            except asyncio.CancelledError:
                # A program that cancels all tasks that it finds; the runtime client would not catch this one.
                raise ProgramFailed("A program cancelled the whole invocation.") from None

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """Run in a thread; or at once, where a hop to a thread and back would cost more than the work."""
        if not self._fast or executor is not None or args or not is_pure(func):
            return super().run_in_executor(executor, func, *args)
        done = self.create_future()
        try:
            done.set_result(func())
        except Exception as error:
            done.set_exception(error)
        return done

    def end_invocation(self) -> list[str]:
        """Cancel the tasks that programs left behind, and give them a moment; their names.

        Frozen with the environment and thawed in somebody else's invocation, they would run on there.
        """
        tasks = asyncio.all_tasks(self)
        if not tasks:
            return []
        # What is no coroutine is the loop's own clean-up of an async generator, which shall end as it is.
        left = {task: name for task in tasks if (name := _name(task)) is not None}
        for task in left:
            task.cancel()
        self.run_until_complete(asyncio.wait(tasks, timeout=_LAST_SECONDS))
        return sorted(left.values())

    def _report(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        from dspy_lambda.telemetry.calls import describe

        error = context.get("exception")
        self._log.error("left behind by a program", extra=describe(error) if error else {})


def _name(task: asyncio.Task[Any]) -> str | None:
    """The name of a task that a program started; None for one of a library.

    LiteLLM keeps a worker of its own running, which does not come back when it is cancelled.
    """
    coroutine = task.get_coro()
    if not isinstance(coroutine, types.CoroutineType) or f"{os.sep}litellm{os.sep}" in coroutine.cr_code.co_filename:
        return None
    return coroutine.__qualname__
