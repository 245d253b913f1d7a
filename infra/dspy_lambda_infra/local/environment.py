"""One execution environment: a process of awslambdaric, and the Runtime API that it talks to.

https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from aiohttp import web

from dspy_lambda_infra.local import sandbox

# "6 MB each for request and response (synchronous)"; the exact figures are in the errors that Lambda gives.
MAX_REQUEST_BYTES = 6_291_456
MAX_RESPONSE_BYTES = 6_291_556
INIT_SECONDS = 10.0
_LAST_OUTPUT_SECONDS = 0.5
_VERSION = "/2018-06-01/runtime"


@dataclass(frozen=True)
class Answer:
    """What an invocation ended with: the function's payload, or the error's with its type in `error`."""

    payload: bytes
    error: str | None = None

    @property
    def message(self) -> str:
        """An error's text."""
        try:
            return str(json.loads(self.payload)["errorMessage"])
        except (ValueError, KeyError, TypeError):
            return ""


@dataclass(frozen=True)
class Settings:
    """What an execution environment is made with."""

    name: str
    timeout_seconds: float
    memory_mb: int
    task_root: Path
    variables: dict[str, str]
    read_only: tuple[Path, ...]
    log: Callable[[str, str], None]


def error_payload(kind: str, message: str, request_id: str = "") -> bytes:
    """An error as Lambda itself would report it."""
    return json.dumps({"errorType": kind, "errorMessage": message, "requestId": request_id}).encode()


class ExecutionEnvironment:
    """Starts the process, hands it one event at a time, and kills it when an event outlasts the timeout.

    Args:
        tmp: the folder that the process has for its temporary files.

    Attributes:
        alive: whether it can take another event.
        init_ms: how long its init took.
    """

    def __init__(self, settings: Settings, tmp: Path) -> None:
        self._settings = settings
        self.tmp = tmp
        self.alive = False
        self.init_ms = 0.0
        self._stopped = False
        self._process: asyncio.subprocess.Process | None = None
        self._runner: web.AppRunner | None = None
        self._ready = asyncio.Event()
        self._events: asyncio.Queue[tuple[str, bytes, float]] = asyncio.Queue(1)
        self._answer: asyncio.Future[Answer] | None = None
        self._reader: asyncio.Task[None] | None = None
        self._init_error: Answer | None = None

    async def start(self) -> Answer | None:
        """Start the process and wait for it to ask for its first event; an Answer if its init failed instead."""
        begin = time.perf_counter()
        try:
            process = self._process = await self._spawn(await self._open_runtime_api())
        except OSError as error:
            await self.stop()
            return Answer(error_payload("Runtime.ExitError", f"Runtime did not start: {error}"), "Runtime.ExitError")
        if self._stopped:
            await self.stop()
            return Answer(error_payload("Runtime.Stopped", "Stopped during init"), "Runtime.Stopped")
        self._reader = asyncio.create_task(self._read_output(process))
        exited = asyncio.create_task(process.wait())
        ready = asyncio.create_task(self._ready.wait())
        limit = max(INIT_SECONDS, self._settings.timeout_seconds)
        either: set[asyncio.Task[Any]] = {exited, ready}
        await asyncio.wait(either, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        self.init_ms = (time.perf_counter() - begin) * 1000
        ready.cancel()
        self._exited = exited
        if self._init_error is None and not self._ready.is_set():
            self._init_error = (
                Answer(error_payload("Runtime.ExitError", f"Runtime exited: {exited.result()}"), "Runtime.ExitError")
                if exited.done()
                else Answer(error_payload("Sandbox.Timedout", f"Init timed out after {limit:.2f} seconds"), "Timeout")
            )
        if self._init_error is not None:
            await self.stop()
            return self._init_error
        self.alive = True
        return None

    async def invoke(self, request_id: str, payload: bytes) -> Answer:
        """Run one event; on timeout the process is killed, as Lambda does, and the environment is not alive then."""
        timeout = self._settings.timeout_seconds
        self._answer = asyncio.get_running_loop().create_future()
        self._events.put_nowait((request_id, payload, time.time() + timeout))
        either: set[asyncio.Future[Any]] = {self._answer, self._exited}
        await asyncio.wait(either, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if self._answer.done():
            return self._answer.result()
        self.alive = False
        if self._exited.done():
            message = f"RequestId: {request_id} Error: Runtime exited with error: exit status {self._exited.result()}"
            return Answer(error_payload("Runtime.ExitError", message, request_id), "Runtime.ExitError")
        await self.stop()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        message = f"{stamp} {request_id} Task timed out after {timeout:.2f} seconds"
        return Answer(error_payload("Sandbox.Timedout", message, request_id), "Sandbox.Timedout")

    async def stop(self) -> None:
        """Kill the process group and close the Runtime API."""
        self.alive, self._stopped = False, True
        if self._process is not None:
            # The group may outlive its leader: a program's own child, which also keeps the output open.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            await self._process.wait()
        if self._reader is not None:
            await asyncio.wait({self._reader}, timeout=_LAST_OUTPUT_SECONDS)
            self._reader.cancel()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _open_runtime_api(self) -> str:
        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_get(f"{_VERSION}/invocation/next", self._next)
        app.router.add_post(_VERSION + "/invocation/{id}/response", self._respond)
        app.router.add_post(_VERSION + "/invocation/{id}/error", self._fail)
        app.router.add_post(f"{_VERSION}/init/error", self._fail_init)
        # The runtime client sends an error's text in a header of up to 1 MB.
        self._runner = web.AppRunner(
            app, access_log=None, shutdown_timeout=0.1, max_field_size=2**21, max_line_size=2**16
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        return f"{host}:{port}"

    async def _spawn(self, address: str) -> asyncio.subprocess.Process:
        settings = self._settings
        command = [sys.executable, "-m", "awslambdaric", settings.variables["_HANDLER"]]
        if settings.read_only:
            command = sandbox.read_only(command, list(settings.read_only))
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

    async def _next(self, _: web.Request) -> web.StreamResponse:
        self._ready.set()
        request_id, payload, deadline = await self._events.get()
        headers = {
            "Lambda-Runtime-Aws-Request-Id": request_id,
            "Lambda-Runtime-Deadline-Ms": str(int(deadline * 1000)),
            "Lambda-Runtime-Invoked-Function-Arn": function_arn(self._settings.name),
            "Lambda-Runtime-Trace-Id": f"Root=1-{int(time.time()):08x}-{request_id.replace('-', '')[:24]};Sampled=0",
        }
        return web.Response(body=payload, headers=headers, content_type="application/json")

    async def _respond(self, request: web.Request) -> web.Response:
        payload = await request.read()
        if len(payload) > MAX_RESPONSE_BYTES:
            message = f"Response payload size exceeded maximum allowed payload size ({MAX_RESPONSE_BYTES} bytes)."
            kind = "Function.ResponseSizeTooLarge"
            self.alive = False  # the runtime client ends on a refused answer
            self._settle(Answer(error_payload(kind, message, request.match_info["id"]), kind))
            return web.json_response({"errorMessage": message, "errorType": kind}, status=413)
        self._settle(Answer(payload))
        return web.json_response({"status": "OK"}, status=202)

    async def _fail(self, request: web.Request) -> web.Response:
        payload = await request.read()
        self._settle(Answer(payload, _error_type(payload)))
        return web.json_response({"status": "OK"}, status=202)

    async def _fail_init(self, request: web.Request) -> web.Response:
        payload = await request.read()
        self._init_error = Answer(payload, _error_type(payload))
        return web.json_response({"status": "OK"}, status=202)

    def _settle(self, answer: Answer) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(answer)


def function_arn(name: str) -> str:
    """The ARN that a function would have."""
    return f"arn:aws:lambda:us-east-1:123456789012:function:{name}"


def _error_type(payload: bytes) -> str:
    try:
        error: Any = json.loads(payload)
        return str(error.get("errorType") or "Unhandled")
    except (ValueError, AttributeError):
        return "Unhandled"


def _python_path() -> dict[str, str]:
    if find_spec("runtime_client") is not None:
        return {}
    # awslambdaric is installed without its native part here (macOS): this one speaks the same four calls.
    return {"PYTHONPATH": str(Path(__file__).parent / "portable")}
