"""A model server in a process of its own, and how one is served."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import subprocess
import sys
import urllib.request
from typing import Any, Self

from aiohttp import web

from dspy_lambda_infra.model_server.behavior import Behavior


class ModelServer:
    """Runs a model server in a separate process, on a free port, for the duration of a `with` block.

    Args:
        host: the address to listen on; containers can reach only "0.0.0.0". `address` and `url` always name loopback.
        behavior: fields of `Behavior`; change them later with `behave`.
    """

    def __init__(self, *, host: str = "127.0.0.1", **behavior: Any) -> None:
        self._host = host
        self._behavior = Behavior(**behavior)
        self.address = ""

    @property
    def url(self) -> str:
        """Return the base URL for `api_base`."""
        return f"{self.address}/v1"

    @property
    def aws_variables(self) -> dict[str, str]:
        """Return variables whose credentials may sign for Bedrock's paths."""
        credentials = self._behavior.credentials[0]
        pair = {"AWS_ACCESS_KEY_ID": credentials.access_key, "AWS_SECRET_ACCESS_KEY": credentials.secret_key}
        token = {"AWS_SESSION_TOKEN": credentials.session_token} if credentials.session_token else {}
        return {**pair, **token, "AWS_REGION": "us-east-1"}  # any region is accepted

    def __enter__(self) -> Self:
        # The server's standard input is a pipe from this process: when this one dies, the server reads EOF and stops.
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "dspy_lambda_infra.model_server",
                "--host",
                self._host,
                "--port",
                "0",
                "--until-stdin-closes",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if "http://" not in line:
            raise RuntimeError(f"the model server did not start: {line!r}")
        self.address = line.split()[-1].removesuffix("/v1")
        self._call("/behavior", dataclasses.asdict(self._behavior))
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def stats(self) -> dict[str, Any]:
        """Return the counts since the last `behave`.

        `requests`, `connections` (distinct ones), `in_flight`, `peak_in_flight`, `per_model` (requests per model);
        `models`: sums per model of `requests`, `answered`, `prompt_tokens` (including cached ones),
        `completion_tokens`, `cache_read_tokens` and `cache_write_tokens`;
        `started`: when the last 100,000 requests arrived, by `time.monotonic()`, which all processes of a machine
        share; `answered`: completions that were sent in full, including malformed ones; `prompt_tokens` and
        `completion_tokens`: the usage that these report.
        """
        return self._call("/stats")

    def behave(self, **behavior: Any) -> None:
        """Replace the behavior (omitted fields return to their defaults) and reset the counts.

        Raises:
            TypeError: an unknown field.
            ValueError: an unknown failure.
        """
        self._behavior = Behavior(**behavior)
        self._call("/behavior", dataclasses.asdict(self._behavior))

    def _call(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(f"{self.address}{path}", data, timeout=10) as response:
            result: dict[str, Any] = json.load(response)
            return result


async def serve(app: web.Application, host: str, port: int, until_stdin_closes: bool) -> None:
    """Serve until stopped; print the address once the server accepts calls."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, host, port, backlog=2048)
    await site.start()
    with contextlib.suppress(BrokenPipeError):  # the parent process is already gone; standard input will report that
        print(f"model server http://127.0.0.1:{runner.addresses[0][1]}/v1", flush=True)
    if until_stdin_closes:
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)
    else:
        await asyncio.Event().wait()
    await runner.cleanup()
