"""`dspy-lambda serve`: the same application under uvicorn, with concurrent requests in one process.

For development, containers, and environments that accept concurrent requests; same dispatch, same limits.
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
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
from starlette.requests import Request

from dspy_lambda.api.app import create_app
from dspy_lambda.api.problems import problem
from dspy_lambda.dspy_patches.table import patch_models
from dspy_lambda.environment import Environment
from dspy_lambda.errors import ConfigError
from dspy_lambda.secrets import resolve
from dspy_lambda.settings import API_BASE, TEXTS, Settings
from dspy_lambda_infra.config import load_config
from dspy_lambda_infra.local.access import is_loopback, refuse_host, refuse_origin
from dspy_lambda_infra.local.command import model_variables
from dspy_lambda_infra.local.keys import require_headers, require_keys
from dspy_lambda_infra.local.readable import Terminal
from dspy_lambda_infra.project import load_project, read_dotenv

Scope = MutableMapping[str, Any]
# How long calls may continue after Ctrl-C or SIGTERM; `docker stop` kills a container after 10 s.
_GRACE_SECONDS = 5
_FLUSH_SECONDS = 2.0
_BACKLOG = 2048  # uvicorn's default


class ServeApp:
    """Gives each request its own invocation: an id, a deadline (the program's timeout) and metrics.

    Args:
        own_machine: whether only programs on this machine may call it, and no web pages in its browser.
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
            if (tracer := self._environment.telemetry.tracer) is not None:
                tracer.begin_request(invocation, Request(scope).headers)
            scope.update(invocation=invocation, dispatcher=self._environment.dispatcher, request_id=about["request_id"])
            await self._app(scope, receive, send)

    def _refuse_page(self, request: Request) -> str | None:
        hosts, origins = (request.headers.getlist(name) for name in ("host", "origin"))
        port, allowed = request.scope["server"][1], self._environment.config.server.cors_origins
        return refuse_host(hosts, port) or refuse_origin(request.method, origins, port, allowed)


def run_serve(root: Path, *, host: str, port: int, dev: bool, model_server: bool) -> int:
    """Serve until Ctrl-C or SIGTERM, then give running calls 5 s to finish. Return 1 if the port is not available.

    Args:
        port: 0 for a free one.
        dev: whether to show callers the texts of exceptions.
        model_server: whether an embedded server answers for the models.

    Raises:
        ConfigError: `dev` although other machines could call it, or a model's key or a collector's headers are missing.
    """
    root = root.resolve()
    config = load_config(root)
    own = {**read_dotenv(root), **os.environ, "DSPY_LAMBDA_PROJECT": str(root)}
    os.environ.update(own)  # programs may read their variables during calls, too
    with model_variables(model_server, config) as variables:
        os.environ.update(variables)
        # The programs run in this process, so what their modules create on import is what will be called.
        patch_models(gateway=API_BASE in os.environ)
        project = load_project(root)
        for name, why in project.failed.items():
            print(f"program {name} cannot be loaded: {why}", file=sys.stderr)
        require_keys(project, project.functions, variables)
        require_headers(project, project.functions, variables)
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
    exporter = environment.telemetry.exporter
    flush = (lambda: None) if exporter is None else partial(exporter.close, _FLUSH_SECONDS)
    server = _Server(config, [*environment.programs] if output else [], flush)
    watcher = (environment.runner, threading.get_ident())
    threading.Thread(target=environment.watch.keep_watching, args=watcher, daemon=True).start()
    code = 130
    with contextlib.suppress(KeyboardInterrupt):
        environment.use_loop().run_until_complete(server.serve([listener]))
        code = 0 if server.started else 1
    _leave_threads(code)
    return code


def _listen(host: str, port: int) -> socket.socket:
    """Open the socket to serve on: uvicorn would exit and report only the error's number."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=_BACKLOG)


def _leave_threads(code: int) -> None:
    """Exit now if a program's thread would keep the process alive: those of dspy.asyncify are not daemon threads."""
    if all(thread.daemon or thread is threading.main_thread() for thread in threading.enumerate()):
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


class _Server(uvicorn.Server):
    """Prints the addresses once it listens, and exports the last spans before uvicorn raises the signal again.

    Args:
        shown: the programs to list.
        flush: exports what waits.
    """

    def __init__(self, config: uvicorn.Config, shown: Sequence[str], flush: Callable[[], None]) -> None:
        super().__init__(config)
        self._shown = shown
        self._flush = flush

    async def shutdown(self, sockets: Any = None) -> None:
        await super().shutdown(sockets)
        self._flush()

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        if self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            address = f"http://{host}:{port}"
            lines = [f"  POST {address}/{name}" for name in sorted(self._shown)]
            lines += [f"  GET  {address}/docs (calls them from a page)"] if lines else []
            print("\n".join([f"ready {address}", *lines]), file=sys.__stdout__, flush=True)
