"""The model server in a process that can be killed; its requests and answers are kept in a file.

python -m tests.stress.chaos_model PORT FILE
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from aiohttp import web

from dspy_lambda_infra.model_server import Behavior, Counts, ModelApp, serve
from tests.conftest import ROOT

# The questions of the test's programs: their message and their invocation.
_ASKED = re.compile(r"((?:Sync|Async|Ordered)-\d+ [0-9a-f-]{36})")
_request: ContextVar[str] = ContextVar("request")


class Recorder(ModelApp):
    """Records each request, its fate, and whether its answer was sent in full."""

    def __init__(self, path: Path) -> None:
        super().__init__(Behavior())
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._number = 0

    def _note(self, what: str) -> None:
        os.write(self._file, f"{what} {os.getpid()}-{_request.get()} {time.monotonic()}\n".encode())

    async def _complete(self, request: web.Request, counts: Counts) -> web.StreamResponse:
        found = _ASKED.search(await request.text())
        self._number += 1
        _request.set(f"{self._number} {found[1] if found else 'unknown unknown'}")
        return await super()._complete(request, counts)

    def _fate(self, model: str) -> str:
        fate = super()._fate(model)
        slow = fate == "answer" and self.behavior.trickle_seconds
        self._note("trickle" if slow else fate)
        return fate

    async def _answer(self, *args: Any, **options: Any) -> web.StreamResponse | None:
        response = await super()._answer(*args, **options)
        self._note("sent" if response is not None else "unsent")
        return response


class KillableModel:
    """A `Recorder` on one port, across restarts of its process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.port = 0
        self._behaviour: dict[str, Any] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @contextlib.contextmanager
    def running(self) -> Iterator[KillableModel]:
        self._start()
        try:
            yield self
        finally:
            self._kill()

    def restart(self) -> None:
        """Kill it with all requests in progress, and start it again."""
        self._kill()
        self._start()

    def behave(self, **behavior: Any) -> None:
        self._behaviour = behavior
        data = json.dumps(behavior).encode()
        urllib.request.urlopen(f"http://127.0.0.1:{self.port}/behavior", data, timeout=10).close()

    def _start(self) -> None:
        command = [sys.executable, "-m", "tests.stress.chaos_model", str(self.port), str(self.path)]
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        assert self._process.stdout is not None
        address = self._process.stdout.readline().split()[-1]
        self.port = int(address.removesuffix("/v1").rpartition(":")[2])
        self.behave(**self._behaviour)

    def _kill(self) -> None:
        self._process.kill()
        self._process.communicate()


def main() -> None:
    port, path = sys.argv[1:]
    asyncio.run(serve(Recorder(Path(path)).application(), "127.0.0.1", int(port), True))


if __name__ == "__main__":
    main()
