"""Our own local Lambda, running beside the tests: what SAM's answers are compared with."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

from infra.local.environment import Answer
from infra.local.local import LocalLambda
from infra.project import load_project


@dataclass(frozen=True)
class Local:
    """A project on the local Lambda.

    Attributes:
        addresses: of its HTTP fronts, by the kind of events that they make.
    """

    addresses: dict[str, str]
    _lambda: LocalLambda
    _loop: asyncio.AbstractEventLoop

    def invoke(self, program: str, event: bytes) -> Answer:
        """Invoke a program's function."""
        return _wait(self._lambda.function(program).invoke(event), self._loop)


@contextmanager
def local_lambda(root: Path, variables: dict[str, str]) -> Iterator[Local]:
    """Run a project's functions and its HTTP fronts, on an event loop in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever)
    thread.start()
    stack = AsyncExitStack()
    try:
        running = _wait(stack.enter_async_context(LocalLambda(load_project(root), variables)), loop)
        addresses = {k: _wait(stack.enter_async_context(running.front(k, 0)), loop) for k in ("rest", "http")}
        yield Local(addresses, running, loop)
    finally:
        _wait(stack.aclose(), loop)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _wait(work: Coroutine[Any, Any, Any], loop: asyncio.AbstractEventLoop) -> Any:
    return asyncio.run_coroutine_threadsafe(work, loop).result(60)
