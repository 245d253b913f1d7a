"""`dspy-lambda serve`: the same application under uvicorn, with many requests at once in one process.

For development, containers, and environments that take more than one request; same dispatch, same limits.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from pathlib import Path
from typing import Any

import uvicorn
from starlette.requests import Request

from dspy_lambda.api.app import create_app
from dspy_lambda.api.problems import problem
from dspy_lambda.environment import Environment
from dspy_lambda.errors import ConfigError
from dspy_lambda.secrets import resolve
from dspy_lambda.settings import TEXTS, Settings
from dspy_lambda_infra.local.access import is_loopback, refuse_host, refuse_origin
from dspy_lambda_infra.local.command import model_variables
from dspy_lambda_infra.local.keys import require_keys
from dspy_lambda_infra.local.readable import Terminal
from dspy_lambda_infra.project import load_project, read_dotenv

Scope = MutableMapping[str, Any]
# How long calls may go on after Ctrl-C or SIGTERM; a container is killed 10 s after it (docker stop).
_GRACE_SECONDS = 5
_BACKLOG = 2048  # uvicorn's own


class ServeApp:
    """Gives each request an invocation of its own: its id, its deadline (the program's timeout), its metrics.

    Args:
        own_machine: whether only programs of this machine may call it, and no web page that its browser shows.
    """

    def __init__(self, environment: Environment, *, own_machine: bool) -> None:
        self._environment = environment
        self._own_machine = own_machine
        self._app = create_app(environment)

    async def __call__(self, scope: Scope, receive: Callable[..., Any], send: Callable[..., Awaitable[None]]) -> None:
        if scope["type"] != "http":
            return
        if self._own_machine and (reason := self._refuse_page(Request(scope))):
            scope["request_id"] = str(uuid.uuid4())
            await problem(Request(scope), 403, "Forbidden", reason)(scope, receive, send)
            return
        program = scope["path"].removeprefix("/")
        seconds = self._environment.config.lambda_.function(program).timeout_seconds
        sent = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"x-request-id"), None)
        about = {"request_id": str(uuid.uuid4()), "correlation_id": sent, "deadline": time.monotonic() + seconds}
        with self._environment.invocation("serve", **about) as invocation:
            scope.update(invocation=invocation, dispatcher=self._environment.dispatcher, request_id=about["request_id"])
            await self._app(scope, receive, send)

    def _refuse_page(self, request: Request) -> str | None:
        hosts, origins = (request.headers.getlist(name) for name in ("host", "origin"))
        port, allowed = request.scope["server"][1], self._environment.config.server.cors_origins
        return refuse_host(hosts, port) or refuse_origin(request.method, origins, port, allowed)


def run_serve(root: Path, *, host: str, port: int, dev: bool, model_server: bool) -> int:
    """Serve until Ctrl-C or SIGTERM; calls that run then have 5 s to end. 1 where the port cannot be had.

    Args:
        port: 0 for a free one.
        dev: whether callers are shown the texts of exceptions.
        model_server: whether an embedded server answers for the models.

    Raises:
        ConfigError: `dev` where other machines could call it, or a model's key is missing.
    """
    project = load_project(root)
    for name, why in project.failed.items():
        print(f"program {name} cannot be loaded: {why}", file=sys.stderr)
    own = {**read_dotenv(project.root), **os.environ, "DSPY_LAMBDA_PROJECT": str(project.root)}
    os.environ.update(own)  # programs read theirs when they are called, too
    with model_variables(model_server, project) as variables:
        require_keys(project, project.functions, variables)
        os.environ.update(variables)
        os.chdir(project.root)  # as on Lambda
        return _serve(own | variables, host, port, dev)


def _serve(variables: dict[str, str], host: str, port: int, dev: bool) -> int:
    own_machine = is_loopback(host)
    if dev and not own_machine:
        raise ConfigError(f"--dev shows the texts of exceptions to every caller: leave out --host {host}.")
    try:
        listener = _listen(host, port)
    except OSError as error:
        print(f"dspy-lambda: port {port}: {error.strerror}; --port 0 picks a free one", file=sys.stderr)
        return 1
    output = Terminal(sys.stdout, "serve") if sys.stdout.isatty() else None
    shown = {TEXTS: "answer"} if dev else {}
    settings = Settings.from_environment(variables)
    secrets = resolve(settings) if settings.secrets else {}
    os.environ.update(secrets)  # as on Lambda: programs that make their own LMs look there
    environment = Environment(variables | secrets | shown, output, own_process=True, secrets=secrets)
    config = uvicorn.Config(
        ServeApp(environment, own_machine=own_machine),
        host=host,
        port=port,
        lifespan="off",
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    server = _Server(config, [*environment.programs] if output else [])
    watcher = (environment.runner, threading.get_ident())
    threading.Thread(target=environment.watch.keep_watching, args=watcher, daemon=True).start()
    code = 130
    with contextlib.suppress(KeyboardInterrupt):
        environment.use_loop().run_until_complete(server.serve([listener]))
        code = 0 if server.started else 1
    _leave_threads(code)
    return code


def _listen(host: str, port: int) -> socket.socket:
    """The socket to serve on: uvicorn's own would end the process, and say no more than the error's number."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=_BACKLOG)


def _leave_threads(code: int) -> None:
    """End the process if a program's thread would keep it: those of dspy.asyncify and its like are no daemons."""
    if all(thread.daemon or thread is threading.main_thread() for thread in threading.enumerate()):
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


class _Server(uvicorn.Server):
    """Says where it listens, once it does.

    Args:
        shown: the programs to name with it.
    """

    def __init__(self, config: uvicorn.Config, shown: Sequence[str]) -> None:
        super().__init__(config)
        self._shown = shown

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        if self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            address = f"http://{host}:{port}"
            lines = [f"  POST {address}/{name}" for name in sorted(self._shown)]
            lines += [f"  GET  {address}/docs (calls them from a page)"] if lines else []
            print("\n".join([f"ready {address}", *lines]), file=sys.__stdout__, flush=True)
