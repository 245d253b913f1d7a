"""`dspy-lambda serve`: the same application under uvicorn, with many requests at once in one process.

For development, containers, and environments that take more than one request; same dispatch, same limits.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

import uvicorn
from starlette.requests import Request

from dspy_lambda.api.app import create_app
from dspy_lambda.api.problems import problem
from dspy_lambda.environment import Environment
from dspy_lambda.errors import ConfigError
from dspy_lambda.settings import TEXTS
from dspy_lambda_infra.local.access import is_loopback, refuse_host, refuse_origin
from dspy_lambda_infra.local.readable import Terminal

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


def run_serve(options: argparse.Namespace, variables: dict[str, str]) -> int:
    """Serve until Ctrl-C or SIGTERM; calls that run then have 5 s to end. 1 where the port cannot be had.

    Raises:
        ConfigError: `--dev` where other machines could call it.
    """
    own_machine = is_loopback(options.host)
    if options.dev and not own_machine:
        raise ConfigError(f"--dev shows the texts of exceptions to every caller: leave out --host {options.host}.")
    try:
        listener = _listen(options.host, options.port)
    except OSError as error:
        print(f"dspy-lambda: port {options.port}: {error.strerror}; --port 0 picks a free one", file=sys.stderr)
        return 1
    output = Terminal(sys.stdout, "serve") if sys.stdout.isatty() else None
    shown = {TEXTS: "answer"} if options.dev else {}
    environment = Environment(shown | variables, output, own_process=True)
    config = uvicorn.Config(
        ServeApp(environment, own_machine=own_machine),
        host=options.host,
        port=options.port,
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
