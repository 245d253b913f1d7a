"""One execution environment: an awslambdaric process, and the Runtime API that it talks to."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dspy_lambda_infra.local import sandbox
from dspy_lambda_infra.local.answer import Answer, error_answer, exit_answer
from dspy_lambda_infra.local.cgroups import Group, Limits
from dspy_lambda_infra.local.runtime_api import Event, RuntimeApi

# "6 MB each for request and response (synchronous)"; the exact figures are in Lambda's error messages.
MAX_REQUEST_BYTES = 6_291_456
INIT_SECONDS = 10.0
_LAST_OUTPUT_SECONDS = 0.5
# "0 ms: a function with no registered extensions; 500 ms: a function with a registered internal extension"
# https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html#runtimes-lifecycle-shutdown
_SHUTDOWN_SECONDS = 0.5
_GROUP_TRIES = 100


@dataclass(frozen=True)
class Settings:
    """The settings of an execution environment.

    Attributes:
        read_only: folders that it cannot write to.
        limits: limits its memory and CPU; None for no limits.
        log: called with the function's name and one line of its output.
    """

    name: str
    timeout_seconds: float
    memory_mb: int
    task_root: Path
    variables: dict[str, str]
    read_only: tuple[Path, ...]
    limits: Limits | None
    log: Callable[[str, str], None]


class ExecutionEnvironment:
    """Starts the process, sends it one event at a time, and kills it when an invocation exceeds the timeout.

    Between invocations the process is frozen: "Lambda freezes the execution environment when the runtime and each
    extension have completed and there are no pending events."
    https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html

    Args:
        tmp: the folder for the process's temporary files.

    Attributes:
        alive: whether it can run another event.
        init_ms: how long its init took, in milliseconds.
    """

    def __init__(self, settings: Settings, tmp: Path) -> None:
        self._settings = settings
        self.tmp = tmp
        self.alive = False
        self.init_ms = 0.0
        self._stopped = False
        self._ends = 0.0
        self._request_id = ""
        self._api = RuntimeApi(settings.name, settings.variables["_HANDLER"], lambda: self._freeze(True))
        self._group: Group | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._exited: asyncio.Future[int] | None = None
        self._reader: asyncio.Task[None] | None = None

    async def start(self) -> Answer | None:
        """Start the process and wait until it requests its first event; return an Answer if its init failed."""
        begin = time.perf_counter()
        try:
            process = self._process = await self._spawn(await self._api.start())
        except OSError as error:
            await self.stop()
            return error_answer("Runtime.ExitError", f"Runtime did not start: {error}")
        if self._stopped:
            await self.stop()
            return error_answer("Runtime.Stopped", "Stopped during init")
        self._reader = asyncio.create_task(self._read_output(process))
        self._exited = asyncio.ensure_future(process.wait())
        failed = await self._wait_for_init(self._exited)
        self.init_ms = (time.perf_counter() - begin) * 1000
        if failed is not None:
            await self.stop()
            return failed
        if self._group is not None:
            # "On-demand Lambda functions use a full vCPU (non-throttled)" during init:
            # https://serverlessland.com/content/service/lambda/guides/effectively-running-java-on-serverless/init-heavy-lifting
            self._group.limit_cpu()
        self.alive = True
        return None

    async def _wait_until_ready(self, exited: asyncio.Future[int], seconds: float) -> None:
        ready = asyncio.create_task(self._api.ready.wait())
        either: set[asyncio.Future[Any]] = {exited, ready}
        await asyncio.wait(either, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()

    async def _wait_for_init(self, exited: asyncio.Future[int]) -> Answer | None:
        limit = max(INIT_SECONDS, self._settings.timeout_seconds)
        await self._wait_until_ready(exited, limit)
        if self._api.init_error is not None or self._api.ready.is_set():
            return self._api.init_error
        if exited.done():
            return exit_answer(exited.result())
        return error_answer("Sandbox.Timedout", f"Init timed out after {limit:.2f} seconds")

    async def invoke(self, request_id: str, payload: bytes, trace: str) -> Answer:
        """Run one event and return its answer, after which the invocation may continue: see `end`.

        On timeout, kill the process, as Lambda does; the environment is then no longer alive.

        Args:
            trace: the X-Ray trace header.
        """
        assert self._exited is not None
        timeout = self._settings.timeout_seconds
        self._request_id, self._ends = request_id, time.monotonic() + timeout
        self._freeze(False)
        answer = self._api.send(Event(request_id, payload, time.time() + timeout, trace))
        either: set[asyncio.Future[Any]] = {answer, self._exited}
        await asyncio.wait(either, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            self.alive = self.alive and not self._api.broken
            return answer.result()
        self.alive = False
        if self._exited.done():
            return exit_answer(self._exited.result(), request_id)
        await self.stop()
        return self._timed_out()

    async def end(self) -> Answer | None:
        """Wait until the invocation has ended, and return the error if it failed after its answer.

        "The function's timeout setting limits the duration of the entire Invoke phase": "the function and all
        extensions need to complete within" it. "The invoke phase ends after the runtime and all extensions signal
        that they are done by sending a Next API request." If it "crashes or times out", "Lambda resets the execution
        environment".
        https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html#runtimes-lifecycle-invoke
        """
        if not self.alive:
            return None
        assert self._exited is not None
        await self._wait_until_ready(self._exited, self._ends - time.monotonic())
        if self._stopped:
            return None
        ready = self._api.ready.is_set()
        self.alive = ready and self._api.extensions.exit_error is None
        if ready:
            return self._api.extensions.exit_error
        return exit_answer(self._exited.result(), self._request_id) if self._exited.done() else self._timed_out()

    def _timed_out(self) -> Answer:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        message = f"{stamp} {self._request_id} Task timed out after {self._settings.timeout_seconds:.2f} seconds"
        return error_answer("Sandbox.Timedout", message, self._request_id)

    def _freeze(self, frozen: bool) -> None:
        """Freeze the processes, or let them continue. Takes 0.1 ms.

        Without control groups, those that a program started in a session of their own continue.
        """
        if self._process is None or self._process.returncode is not None or (frozen and self._stopped):
            return
        if self._group is None or not self._group.freeze(frozen):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGSTOP if frozen else signal.SIGCONT)

    async def stop(self) -> None:
        """Kill the process group and close the Runtime API; with an extension, it gets SIGTERM half a second before."""
        self.alive, self._stopped = False, True
        if self._process is not None:
            await self._terminate(self._process)
            # The group may outlive its leader: for example a program's child process, which also keeps the output open.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._freeze(False)  # what is not in the process group, if nothing better than the group could be killed
            await self._process.wait()
        if self._reader is not None:
            await asyncio.wait({self._reader}, timeout=_LAST_OUTPUT_SECONDS)
            self._reader.cancel()
        await self._api.stop()
        await self._remove_group()

    async def _terminate(self, process: asyncio.subprocess.Process) -> None:
        if self._exited is None or self._exited.done() or not self._api.extensions:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        self._freeze(False)
        await asyncio.wait({self._exited}, timeout=_SHUTDOWN_SECONDS)

    async def _remove_group(self) -> None:
        for _ in range(_GROUP_TRIES):
            if self._group is None or self._group.remove():
                return
            await asyncio.sleep(0.02)  # children of a killed process are still being killed

    async def _spawn(self, address: str) -> asyncio.subprocess.Process:
        settings = self._settings
        command = [sys.executable, "-m", "awslambdaric", settings.variables["_HANDLER"]]
        if settings.read_only:
            command = sandbox.read_only(command, list(settings.read_only))
        if settings.limits is not None:
            self._group = settings.limits.group(settings.memory_mb)
            command = self._group.command(command)
        return await asyncio.create_subprocess_exec(
            *sandbox.die_with_parent(command),
            cwd=settings.task_root,
            env={**settings.variables, **_python_path(), "AWS_LAMBDA_RUNTIME_API": address, "TMPDIR": str(self.tmp)},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=2**24,
            start_new_session=True,
        )

    async def _read_output(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while True:
            try:
                line = await process.stdout.readline()
            except ValueError:
                line = b"(a line of over 16 MB was dropped)\n"
            if not line:
                return
            self._settings.log(self._settings.name, line.decode(errors="replace").rstrip("\n"))


def _python_path() -> dict[str, str]:
    if find_spec("runtime_client") is not None:
        return {}
    # awslambdaric is installed without its native module here (macOS): this replacement has the same four functions.
    return {"PYTHONPATH": str(Path(__file__).parent / "portable")}
