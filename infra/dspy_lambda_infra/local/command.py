"""`dspy-lambda local` and `dspy-lambda invoke`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from dspy_lambda.errors import ConfigError
from dspy_lambda_infra.local.function import RequestTooLarge, Throttled
from dspy_lambda_infra.local.local import LocalLambda
from dspy_lambda_infra.model_server import ModelServer
from dspy_lambda_infra.project import CATALOGUE, Project, load_project


def run_local(options: argparse.Namespace) -> int:
    """Serve a project until Ctrl-C."""
    project = load_project(options.project)
    with model_variables(options.model_server, project) as variables:
        return asyncio.run(_serve(project, options, variables))


def run_invoke(options: argparse.Namespace) -> int:
    """Run one event; the answer on stdout, logs on stderr; 1 on a function error or any batchItemFailures."""
    event = _read_event(options.event)
    project = load_project(options.project)
    if options.program is not None and options.program not in project.functions:
        known = ", ".join(project.functions)
        raise ConfigError(f"no program {options.program!r}; the project has: {known}.")
    with model_variables(options.model_server, project) as variables:
        return asyncio.run(_invoke(project, options, event, variables))


async def _serve(project: Project, options: argparse.Namespace, variables: dict[str, str]) -> int:
    stop = asyncio.Event()
    received: list[int] = []

    def on_signal(number: int) -> None:
        if received:
            os._exit(1)  # the second time it is meant at once; the kernel takes the functions along
        received.append(number)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, on_signal, number)
    kind = options.api or project.config.lambda_.api.kind
    async with LocalLambda(project, variables, _to_stderr, limit_resources=not options.no_limits) as local:
        if local.writable:
            print(f"the task root is NOT read-only here: {local.writable}", file=sys.stderr)
        if local.unlimited:
            print(f"NOT limited here: {local.unlimited}", file=sys.stderr)
        for name, why in project.failed.items():
            print(f"program {name} cannot be loaded: {why}", file=sys.stderr)
        try:
            async with local.mappings(options.visibility_timeout) as server, local.front(kind, options.port) as address:
                if server.unordered:
                    print(f"FIFO queues do NOT keep their order here: {server.unordered}", file=sys.stderr)
                print(f"ready {address} ({kind} events)")
                for function in project.functions.values():
                    if function.settings.http:
                        print(f"  POST {address}/{function.name}")
                if local.queues:
                    print(f"SQS {server.address}")
                for queue in local.queues.values():
                    print(f"  queue {queue.url}")
                    print(f"  dead-letter queue {queue.dead_letter_url}")
                sys.stdout.flush()
                await stop.wait()
        except OSError as error:
            print(f"dspy-lambda: port {options.port}: {error.strerror}; --port 0 picks a free one", file=sys.stderr)
            return 1
    return 130 if signal.SIGINT in received else 0


async def _invoke(project: Project, options: argparse.Namespace, event: bytes, variables: dict[str, str]) -> int:
    async with LocalLambda(project, variables, _to_stderr, limit_resources=not options.no_limits) as local:
        try:
            answer = await local.function(options.program or CATALOGUE).invoke(event)
        except RequestTooLarge as error:
            print(f"dspy-lambda: the event is over Lambda's 6 MB: {error}", file=sys.stderr)
            return 1
        except Throttled:
            print("dspy-lambda: throttled: the function's reserved_concurrency is 0", file=sys.stderr)
            return 1
    print(answer.payload.decode(errors="replace"))
    if answer.error is not None:
        return 1
    value = json.loads(answer.payload)
    return 1 if isinstance(value, dict) and value.get("batchItemFailures") else 0


def _read_event(source: str) -> bytes:
    try:
        data = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
        json.loads(data)
    except OSError as error:
        raise ConfigError(f"{source}: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{source}: not JSON: {error}.") from None
    return data


@contextlib.contextmanager
def model_variables(embedded: bool, project: Project) -> Iterator[dict[str, str]]:
    """Variables that send model calls to the embedded model server, if that was asked for."""
    if not embedded:
        yield {}
        return
    with ModelServer(samples=True) as server:
        # The usual names, too: a program's own LMs are sent there as well, and shall not carry a real key.
        named = [model.env for model in project.config.models.registry.values() if model.env]
        keys = dict.fromkeys([*named, "OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY"], "embedded")
        yield {**keys, "DSPY_LAMBDA_API_BASE": server.url}


def _to_stderr(function: str, line: str) -> None:
    print(line, file=sys.stderr, flush=True)
