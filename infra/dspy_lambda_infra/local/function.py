"""A Lambda function and its execution environments, up to its reserved concurrency."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
import time
import uuid
from collections import deque
from pathlib import Path

from dspy_lambda_infra.local.answer import Answer, error_answer
from dspy_lambda_infra.local.environment import MAX_REQUEST_BYTES, ExecutionEnvironment, Settings
from dspy_lambda_infra.local.xray import runtime_header

# Replaces the account's unreserved concurrency: each environment is a process of 100 MB.
UNRESERVED_CONCURRENCY = 10


class Throttled(Exception):
    """All of the function's concurrency is in use."""


class RequestTooLarge(Exception):
    """The event exceeds 6 MB."""


class Function:
    """Invokes one function. Starts environments on demand and keeps them for the next event.

    Args:
        reserved: the maximum number of concurrent events; None uses the local replacement for the account's quota.
    """

    def __init__(self, settings: Settings, reserved: int | None) -> None:
        self.settings = settings
        self._limit = UNRESERVED_CONCURRENCY if reserved is None else reserved
        self._active = 0
        self._idle: list[ExecutionEnvironment] = []
        self._all: set[ExecutionEnvironment] = set()
        self._ends: dict[ExecutionEnvironment, asyncio.Task[None]] = {}
        self._folders: list[Path] = []
        self._orphaned_folders: deque[Path] = deque()

    async def invoke(self, payload: bytes, trace: str | None = None) -> Answer:
        """Run one event and return its answer, after which the function's extensions may continue.

        Args:
            trace: the caller's X-Ray trace header; None starts a trace.

        Raises:
            Throttled: the limit is reached. (Lambda would return TooManyRequestsException.)
            RequestTooLarge: the payload exceeds 6 MB.
        """
        if len(payload) > MAX_REQUEST_BYTES:
            raise RequestTooLarge(f"{len(payload)} bytes")
        if self._active >= self._limit:
            raise Throttled(self.settings.name)
        self._active += 1
        work = asyncio.create_task(self._invoke(payload, runtime_header(trace)))
        # Like Lambda, finish an invocation whose caller has disconnected.
        return await asyncio.shield(work)

    async def _invoke(self, payload: bytes, trace: str) -> Answer:
        request_id = str(uuid.uuid4())
        try:
            begin = time.perf_counter()
            environment, failed = await self._environment()
            if failed is not None:
                self._report("platform.initReport", request_id, begin, environment, failed)
                return failed
            begin = time.perf_counter()
            answer = await environment.invoke(request_id, payload, trace)
            end = self._ends[environment] = asyncio.create_task(self._end(environment, request_id, begin, answer))
            if environment.alive:
                self._idle.append(environment)
            else:
                await end
            return answer
        except asyncio.CancelledError:
            return error_answer("Runtime.Stopped", "The local Lambda was stopped", request_id)
        finally:
            self._active -= 1

    async def _end(self, environment: ExecutionEnvironment, request_id: str, begin: float, answer: Answer) -> None:
        """Wait for the end of an invocation, and remove an environment that takes no more events."""
        failed = await environment.end()
        self._report("platform.report", request_id, begin, environment, failed or answer)
        if not environment.alive:
            if environment in self._idle:
                self._idle.remove(environment)
            await environment.stop()
            self._discard(environment)

    async def _environment(self) -> tuple[ExecutionEnvironment, Answer | None]:
        while self._idle:
            environment = self._next_idle()
            await self._ends[environment]
            if environment.alive:
                return environment, None
        environment = ExecutionEnvironment(self.settings, self._tmp())
        self._all.add(environment)
        failed = await environment.start()
        if failed is not None:
            self._discard(environment)
        return environment, failed

    def _next_idle(self) -> ExecutionEnvironment:
        """Take the environment that was used last, or if the invocations of all are still ending, first."""
        ended = [environment for environment in self._idle if self._ends[environment].done()]
        environment = ended[-1] if ended else self._idle[0]
        self._idle.remove(environment)
        return environment

    async def finish(self) -> None:
        """Wait until the invocations that were answered have ended."""
        await asyncio.gather(*self._ends.values())

    def _discard(self, environment: ExecutionEnvironment) -> None:
        self._all.discard(environment)
        self._ends.pop(environment, None)
        self._orphaned_folders.append(environment.tmp)

    def _tmp(self) -> Path:
        """Return the /tmp folder for a new process: "The reset does not clear the /tmp directory content".

        https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html
        """
        if self._orphaned_folders:
            return self._orphaned_folders.popleft()
        self._folders.append(Path(tempfile.mkdtemp(prefix="dspy-lambda-")))
        return self._folders[-1]

    def _report(
        self, kind: str, request_id: str, begin: float, environment: ExecutionEnvironment, answer: Answer
    ) -> None:
        """Log Lambda's own line about an invocation or a failed init, in the JSON log format."""
        metrics = {"durationMs": round((time.perf_counter() - begin) * 1000, 3)}
        if environment.init_ms:
            metrics["initDurationMs"], environment.init_ms = round(environment.init_ms, 3), 0.0
        record = {"requestId": request_id, "status": "error" if answer.error else "success", "metrics": metrics}
        if answer.error:
            record |= {"errorType": answer.error, "errorMessage": answer.message}
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self.settings.log(self.settings.name, json.dumps({"time": stamp, "type": kind, "record": record}))

    async def stop(self) -> None:
        """Stop all environments and remove their temporary folders."""
        await asyncio.gather(*(environment.stop() for environment in self._all))
        await self.finish()
        self._all.clear()
        self._ends.clear()
        self._idle.clear()
        for folder in self._folders:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        self._folders.clear()
        self._orphaned_folders.clear()
