"""The one event loop of an execution environment."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Generator
from typing import Any, TypeVar

Result = TypeVar("Result")


class PersistentLoop(asyncio.SelectorEventLoop):
    """A loop that a program cannot end.

    asyncio lets a SystemExit or KeyboardInterrupt of any task out of `run_until_complete`, past everything that waits
    for the task, and with it out of the handler: the whole batch would be lost. Here the loop is run on; the
    exception still reaches whoever awaits the task.

    A task's failure that nobody fetched is reported by its kind and place only: its text may be private.
    """

    def __init__(self, log: Any) -> None:
        super().__init__()
        self._log = log
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

    def _report(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        from handler.telemetry.calls import describe

        error = context.get("exception")
        self._log.error("left behind by a program", extra=describe(error) if error else {})
