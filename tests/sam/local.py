"""Our own local Lambda, running alongside the tests, to compare SAM's answers with."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dspy_lambda.settings import TEXTS
from dspy_lambda_infra.local.environment import Answer
from dspy_lambda_infra.local.local import LocalLambda
from dspy_lambda_infra.project import Project, load_project


@dataclass(frozen=True)
class Local:
    """A project on the local Lambda.

    Attributes:
        addresses: of its HTTP fronts, by the kind of events that they make.
    """

    addresses: dict[str, str]
    _lambda: LocalLambda
    _loop: asyncio.AbstractEventLoop
    _stop: asyncio.Event

    def invoke(self, program: str, event: bytes) -> Answer:
        """Invoke a program's function."""
        return asyncio.run_coroutine_threadsafe(self._lambda.function(program).invoke(event), self._loop).result(60)

    def stop(self) -> None:
        """End it."""
        self._loop.call_soon_threadsafe(self._stop.set)


@contextmanager
def local_lambda(root: Path, variables: dict[str, str]) -> Iterator[Local]:
    """Run a project's functions and its HTTP fronts, on an event loop in its own thread."""
    started: Future[Local] = Future()
    project = load_project(root)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(asyncio.run, _run(project, variables, started))
        wait((running, started), 60, FIRST_COMPLETED)
        if running.done():
            running.result()
        local = started.result(0)
        try:
            yield local
        finally:
            local.stop()
            running.result()


async def _run(project: Project, variables: dict[str, str], started: Future[Local]) -> None:
    stop = asyncio.Event()
    async with (
        # By default only `local` shows callers the texts of exceptions: SAM does not.
        LocalLambda(project, {TEXTS: "none", **variables}) as running,
        running.front("rest", 0) as rest,
        running.front("http", 0) as http,
    ):
        started.set_result(Local({"rest": rest, "http": http}, running, asyncio.get_running_loop(), stop))
        await stop.wait()
