"""Runs a project's functions, API and queues."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Self

import boto3
from botocore.exceptions import BotoCoreError

from dspy_lambda.settings import DEAD_LETTER_QUEUE, SOURCES, TEXTS, TRACES
from dspy_lambda_infra.local import cgroups, sandbox
from dspy_lambda_infra.local.environment import Settings
from dspy_lambda_infra.local.front import Front
from dspy_lambda_infra.local.function import Function
from dspy_lambda_infra.local.mapping import EventSourceMapping
from dspy_lambda_infra.local.observer import Observer
from dspy_lambda_infra.local.queues import REGION, Queue, QueueServer
from dspy_lambda_infra.project import (
    CATALOGUE,
    HANDLER,
    Project,
    logical_id,
    logical_name,
    read_dotenv,
    shared_variables,
)
from dspy_lambda_infra.template.queues import visibility_timeout_seconds

# Nothing checks these here.
_CREDENTIALS = {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"}


def _silent(_: str, __: str) -> None:
    """Discard logs."""


class LocalLambda:
    """Runs everything that SAM would deploy of a project as local processes, for the duration of a `with` block.

    Args:
        project: the project.
        variables: environment variables for the functions; they override the project's `.env` and this process's own.
        log: called with a function's name and one line of its output, or a line that Lambda itself would log.
        limit_resources: whether to limit functions to their memory and CPU share, if this machine can.

    Attributes:
        queues: the queues by program name, with `url` and `dead_letter_url`.
        writable: why the functions' task root is not read-only here, or None.
        unlimited: which of memory and CPU is not limited here although it should be, and why; or None.
        other_python: the Python version that the functions run on here, if it differs from their runtime; or None.
    """

    def __init__(
        self,
        project: Project,
        variables: dict[str, str] | None = None,
        log: Callable[[str, str], None] = _silent,
        *,
        limit_resources: bool = True,
    ) -> None:
        self._project = project
        self._variables = variables or {}
        self._log = log
        self._observer: Observer | None = None
        # Traces of tries go neither to the config's collector nor to CloudWatch.
        self._traces = "none"
        # On Lambda, functions can write only to /tmp.
        wanted = (p.resolve() for p in (project.root, Path.home(), Path(sys.prefix)) if p.is_dir())
        folders = tuple(dict.fromkeys(folder for folder in wanted if not _holds_tmp(folder)))
        self.writable = sandbox.why_not_read_only(folders)
        self._read_only = () if self.writable else folders
        self._limits = cgroups.find() if limit_resources else None
        self.unlimited = self._limits.unlimited if self._limits else None
        if self._limits:
            self._limits.sweep()
        runtime, here = project.config.lambda_.runtime.removeprefix("python"), "{}.{}".format(*sys.version_info)
        self.other_python = f"Python {here}; on Lambda they run on {runtime}" if here != runtime else None
        self.functions: dict[str, Function] = {}
        self.queues: dict[str, Queue] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(function.stop() for function in self.functions.values()))
        if self._observer is not None:  # after the functions, which send their last spans to it
            await self._observer.stop()

    def function(self, name: str) -> Function:
        """Return a program's function, or (for `CATALOGUE`) one that serves all programs."""
        if name not in self.functions:
            self.functions[name] = self._make(name)
        return self.functions[name]

    async def observe(self) -> str:
        """Collect the traces and log lines of functions that are used from now on; return the observer's address."""
        self._observer = Observer(self._project.root)
        self._traces = await self._observer.start()
        return self._traces

    def _write(self, name: str, line: str) -> None:
        self._log(name, line)
        if self._observer is not None:
            self._observer.add_line(line)

    @contextlib.asynccontextmanager
    async def front(self, kind: str, port: int) -> AsyncIterator[str]:
        """Serve HTTP and yield the address."""
        functions = {name: self.function(name) for name, f in self._project.functions.items() if f.settings.http}
        front = Front(kind, functions, self.function(CATALOGUE), self._project.config.server.cors_origins)
        try:
            yield await front.start(port)
        finally:
            await front.stop()

    @contextlib.asynccontextmanager
    async def mappings(self, visibility_seconds: int | None = None) -> AsyncIterator[QueueServer]:
        """Create the queues, poll them, and yield their server."""
        server = QueueServer()
        variables = self._lambda_variables("", 0)
        _, has_own = await asyncio.gather(
            asyncio.to_thread(server.start), asyncio.to_thread(_finds_credentials, variables)
        )
        tasks = []
        try:
            for name, function in self._project.functions.items():
                if sqs := function.settings.sqs:
                    seconds = visibility_seconds
                    if seconds is None:
                        seconds = visibility_timeout_seconds(function.settings)
                    queue = await asyncio.to_thread(Queue, server.client, logical_name(name), sqs, seconds)
                    self.queues[name] = queue
                    self._reach_queues(name, server, queue, {} if has_own else _CREDENTIALS)
                    mapping = EventSourceMapping(server.client, queue, self.function(name), sqs)
                    tasks.append(asyncio.create_task(mapping.run()))
            yield server
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.to_thread(server.stop)

    def _reach_queues(
        self, name: str, server: QueueServer, queue: Queue, credentials: dict[str, str] = _CREDENTIALS
    ) -> None:
        """Redirect a function's own SQS requests to the local queues.

        Args:
            credentials: for an environment without any. They would override a profile, which its programs may use to
                call AWS; and copies of a profile's credentials, which expire, would not be renewed.
        """
        variables = self.function(name).settings.variables
        variables |= {"AWS_ENDPOINT_URL_SQS": server.address, DEAD_LETTER_QUEUE: queue.dead_letter_url, **credentials}

    def _make(self, name: str) -> Function:
        known = self._project.functions.get(name)
        settings = known.settings if known else self._project.config.lambda_.defaults
        logical = logical_id(name)
        own = known.environment if known else {SOURCES: "http"}
        variables = self._lambda_variables(logical, settings.memory_mb) | own
        if level := self._project.log_level(known) if known else self._project.config.lambda_.log_level:
            variables["AWS_LAMBDA_LOG_LEVEL"] = level
        return Function(
            Settings(
                name=logical,
                timeout_seconds=settings.timeout_seconds,
                memory_mb=settings.memory_mb,
                task_root=self._project.root,
                variables=variables,
                read_only=self._read_only,
                limits=self._limits,
                log=self._write,
            ),
            settings.reserved_concurrency,
        )

    def _lambda_variables(self, function: str, memory_mb: int) -> dict[str, str]:
        """https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html#configuration-envvars-runtime"""
        left_out = ("PYTHON", "AWS_LAMBDA_", "DSPY_LAMBDA_PROGRAM", "DSPY_LAMBDA_MODULE")
        own = {key: value for key, value in os.environ.items() if not key.startswith(left_out)}
        return {
            TEXTS: "answer",  # local callers are developers
            TRACES: self._traces,
            **read_dotenv(self._project.root),
            **own,
            **self._variables,
            "_HANDLER": HANDLER,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EXECUTION_ENV": f"AWS_Lambda_python{sys.version_info.major}.{sys.version_info.minor}",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(memory_mb),
            "AWS_LAMBDA_FUNCTION_NAME": function,
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
            "AWS_LAMBDA_LOG_FORMAT": "JSON",
            "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{function}",
            "AWS_LAMBDA_LOG_STREAM_NAME": "local",
            "AWS_REGION": REGION,
            "DSPY_LAMBDA_PROJECT": str(self._project.root),
            "LAMBDA_TASK_ROOT": str(self._project.root),
            "TZ": ":UTC",
            **shared_variables(self._project.config.app_id),
        }


def _finds_credentials(variables: dict[str, str]) -> bool:
    """Whether the SDK finds credentials in an environment: keys, a profile, or this machine's role."""
    if variables.get("AWS_ACCESS_KEY_ID"):
        return True
    try:
        return boto3.Session(profile_name=variables.get("AWS_PROFILE")).get_credentials() is not None
    except BotoCoreError:
        return False


def _holds_tmp(folder: Path) -> bool:
    tmp = Path(tempfile.gettempdir()).resolve()
    return folder == tmp or folder in tmp.parents
