"""`dspy-lambda local` and `dspy-lambda invoke`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shlex
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from dspy_lambda.errors import ConfigError, UnknownEvent
from dspy_lambda_infra.config import Config
from dspy_lambda_infra.local.function import RequestTooLarge, Throttled
from dspy_lambda_infra.local.keys import require_keys
from dspy_lambda_infra.local.local import LocalLambda
from dspy_lambda_infra.local.queues import REGION
from dspy_lambda_infra.local.readable import answer_to, log_to
from dspy_lambda_infra.model_server import ModelServer
from dspy_lambda_infra.observed import publish
from dspy_lambda_infra.progress import progress
from dspy_lambda_infra.project import CATALOGUE, Function, Project, load_project


def run_local(
    root: Path,
    *,
    port: int,
    api: str | None = None,
    visibility_timeout: int | None = None,
    model_server: bool = False,
    limit_resources: bool = True,
    as_json: bool = False,
) -> int:
    """Serve a project until Ctrl-C.

    Args:
        port: the HTTP front's port; 0 picks a free one.
        api: the front's kind of events (rest, http or url); None uses the config's.
        visibility_timeout: the queues' visibility timeout in seconds; None uses the config's.
        model_server: whether an embedded server answers model calls.
        as_json: whether to print the addresses as one line of JSON.

    Raises:
        ConfigError: the project cannot be served, or a model's key is missing.
    """
    progress("loading the project ...")
    project = load_project(root)
    kind = api or project.config.lambda_.api.kind
    with model_variables(model_server, project.config) as variables:
        require_keys(project, project.functions, variables)
        local = LocalLambda(project, variables, log_to(sys.stderr), limit_resources=limit_resources)
        return asyncio.run(_serve(project, local, kind, port, visibility_timeout, as_json=as_json))


def run_invoke(
    root: Path,
    program: str | None,
    *,
    event: str | None = None,
    inputs: str | None = None,
    model_server: bool = False,
    limit_resources: bool = True,
    as_json: bool = False,
) -> int:
    """Run one event. Print the answer to stdout and logs to stderr; return 1 on a function error or batchItemFailures.

    Args:
        event: a file with an AWS event, or - for standard input; alternatively
        inputs: the program's inputs: a JSON object, a file with one, or -.
        as_json: whether to print the answer unformatted even on a terminal.

    Raises:
        ConfigError: unknown program, invalid JSON, or a model's key is missing.
    """
    payload = _read_event(event) if event is not None else _direct_event(inputs or "")
    progress("loading the project ...")
    project = load_project(root)
    known = ", ".join(project.functions)
    if program is not None and program not in project.functions:
        raise ConfigError(f"no program {program!r}; the project has: {known}.")
    if event is None and program is None and len(project.functions) != 1:
        raise ConfigError(f"--inputs requires a program: {known}.")
    with model_variables(model_server, project.config) as variables:
        require_keys(project, [program] if program else project.functions, variables)
        local = LocalLambda(project, variables, log_to(sys.stderr), limit_resources=limit_resources)
        return asyncio.run(_invoke(local, program or CATALOGUE, payload, as_json))


async def _serve(
    project: Project, lambda_: LocalLambda, kind: str, port: int, visibility_timeout: int | None, *, as_json: bool
) -> int:
    stop = asyncio.Event()
    received: list[int] = []

    def on_signal(number: int) -> None:
        if received:
            os._exit(1)  # the second signal means now; the kernel kills the functions too
        received.append(number)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, on_signal, number)
    async with lambda_ as local:
        _print_warnings(project, local, visibility_timeout)
        observer = await local.observe()
        try:
            with _published(project.root, observer):
                async with local.mappings(visibility_timeout) as server, local.front(kind, port) as address:
                    if server.unordered:
                        print(f"FIFO queues do NOT keep their order here: {server.unordered}", file=sys.stderr)
                    addresses = _Addresses(address, server.address, observer)
                    if as_json:
                        print(json.dumps(_document(project, local, kind, addresses)))
                    else:
                        _show_addresses(project, local, kind, addresses)
                    progress("Press Ctrl-C to stop. The first call of each function starts it, which takes seconds.")
                    sys.stdout.flush()
                    await stop.wait()
        except OSError as error:
            print(f"dspy-lambda: port {port}: {error.strerror}; --port 0 picks a free one", file=sys.stderr)
            return 1
    return 130 if signal.SIGINT in received else 0


def _print_warnings(project: Project, local: LocalLambda, visibility_timeout: int | None) -> None:
    if local.writable:
        print(f"the task root is NOT read-only here: {local.writable}", file=sys.stderr)
    if local.unlimited:
        print(f"NOT limited here: {local.unlimited}", file=sys.stderr)
    if local.other_python:
        print(f"functions run on {local.other_python}", file=sys.stderr)
    for name, why in project.failed.items():
        print(f"program {name} cannot be loaded: {why}", file=sys.stderr)
    for warning in visibility_warnings(project, visibility_timeout):
        print(f"warning: {warning}", file=sys.stderr)


@contextlib.contextmanager
def _published(root: Path, observer: str) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(publish(root, observer))
        except OSError as error:
            print(f"`dspy-lambda logs` and `dspy-lambda trace` will not find this server: {error}", file=sys.stderr)
        yield


@dataclass(frozen=True)
class _Addresses:
    """The addresses of the HTTP front, of the queues' server and of the observer."""

    http: str
    queues: str
    observer: str


def _show_addresses(project: Project, local: LocalLambda, kind: str, addresses: _Addresses) -> None:
    print(f"ready {addresses.http} ({kind} events)")
    for function in project.functions.values():
        if function.settings.http:
            print(f"  POST {addresses.http}/{function.name}")
    print(f"  GET  {addresses.http}/docs (calls them from a page)")
    if local.queues:
        print(f"SQS {addresses.queues}")
    for queue in local.queues.values():
        print(f"  queue {queue.url}")
        print(f"  DLQ   {queue.dead_letter_url}")
    if local.queues and sys.stdout.isatty():
        name, queue = next(iter(local.queues.items()))
        print(f"  {send_command(project.functions[name], addresses.queues, queue.url)}")
    print(f"observer {addresses.observer} (recent calls: dspy-lambda logs, dspy-lambda trace)")


def _document(project: Project, local: LocalLambda, kind: str, addresses: _Addresses) -> dict[str, Any]:
    """Return the same as a JSON-serializable dict."""
    return {
        "address": addresses.http,
        "kind": kind,
        "programs": {name: f"{addresses.http}/{name}" for name, f in project.functions.items() if f.settings.http},
        "sqs": addresses.queues if local.queues else None,
        "queues": {
            name: {"url": queue.url, "dead_letter_url": queue.dead_letter_url} for name, queue in local.queues.items()
        },
        "observer": addresses.observer,
    }


def visibility_warnings(project: Project, seconds: int | None) -> list[str]:
    """Warn if records would become visible while their functions may still be processing them.

    Args:
        seconds: the given visibility timeout; None for the config's.
    """
    queued = [function for function in project.functions.values() if function.settings.sqs]
    short = [function for function in queued if seconds is not None and seconds < function.settings.timeout_seconds]
    if not short:
        return []
    named = ", ".join(f"{function.name} ({function.settings.timeout_seconds} s)" for function in short)
    return [
        f"--visibility-timeout {seconds} is below the timeout of {named}: a record is delivered again while it is "
        "being processed, and runs twice; to retry failed records sooner, set sqs.backoff_seconds: 1 in the config"
    ]


def send_command(function: Function, endpoint: str, queue: str) -> str:
    """Return the AWS CLI command that sends a program's inputs to its local queue."""
    schema = function.program.schemas.inputs.json_schema() if function.program else {}
    body = json.dumps(dict.fromkeys(schema.get("required", []), "..."))
    group = ["--message-group-id", "1"] if function.settings.sqs and function.settings.sqs.fifo else []
    keys = ["AWS_ACCESS_KEY_ID=x", "AWS_SECRET_ACCESS_KEY=x"]  # the CLI requires some; nothing checks them
    where = ["--region", REGION, "--endpoint-url", endpoint, "--queue-url", queue]
    return shlex.join([*keys, "aws", "sqs", "send-message", *where, "--message-body", body, *group])


async def _invoke(lambda_: LocalLambda, function: str, event: bytes, as_json: bool) -> int:
    async with lambda_ as local:
        progress("starting the function ...")
        try:
            answer = await local.function(function).invoke(event)
        except RequestTooLarge as error:
            print(f"dspy-lambda: the event exceeds Lambda's 6 MB: {error}", file=sys.stderr)
            return 1
        except Throttled:
            print("dspy-lambda: throttled: the function's reserved_concurrency is 0", file=sys.stderr)
            return 1
        if as_json:
            print(answer.payload.decode(errors="replace"))
        else:
            answer_to(sys.stdout, answer.payload)
        await local.function(function).finish()
    if answer.error == UnknownEvent.__name__:
        print("dspy-lambda: --event expects an AWS event; pass a program's inputs with --inputs", file=sys.stderr)
    if answer.error is not None:
        return 1
    value = json.loads(answer.payload)
    return 1 if isinstance(value, dict) and value.get("batchItemFailures") else 0


def _read_event(source: str) -> bytes:
    try:
        data = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    except OSError as error:
        raise ConfigError(f"{source}: {error.strerror}.") from None
    _parse(source, data)
    return data


def _direct_event(inputs: str) -> bytes:
    """Return the event that calls a program directly, from inputs as JSON text or a file as for `_read_event`."""
    is_text = inputs.lstrip().startswith(("{", "[", '"'))
    value = _parse("--inputs", inputs.encode()) if is_text else _parse(inputs, _read_event(inputs))
    if not isinstance(value, dict):
        raise ConfigError("--inputs: must be a JSON object with the program's inputs.")
    return json.dumps({"inputs": value}).encode()


def _parse(source: str, data: bytes) -> Any:
    try:
        return json.loads(data, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{source}: invalid JSON: {error}.") from None


def _refuse_constant(name: str) -> NoReturn:
    """Python reads NaN and the infinities, which AWS refuses."""
    raise ValueError(f"{name} is not a value of JSON")


@contextlib.contextmanager
def model_variables(embedded: bool, config: Config) -> Iterator[dict[str, str]]:
    """Yield variables that send model calls to the embedded model server, if it was requested."""
    if not embedded:
        yield {}
        return
    # Whichever credentials there are on this machine sign for Bedrock; the server cannot know their secrets.
    with ModelServer(samples=True, verify_signatures=False) as server:
        # The usual names too: calls of a program's own LMs go there as well, and must not carry a real key.
        named = [model.env for model in config.models.registry.values() if model.env]
        keys = dict.fromkeys([*named, "OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY"], "embedded")
        yield {**keys, **_aws_variables(server), "DSPY_LAMBDA_API_BASE": server.url}


def _aws_variables(server: ModelServer) -> dict[str, str]:
    """Return what signing needs and this machine does not have: neither an account nor a Region is needed here."""
    has_own = any(os.environ.get(name) for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_BEARER_TOKEN_BEDROCK"))
    wanted = {name: value for name, value in server.aws_variables.items() if name == "AWS_REGION" or not has_own}
    return {name: os.environ.get(name) or value for name, value in wanted.items()}
