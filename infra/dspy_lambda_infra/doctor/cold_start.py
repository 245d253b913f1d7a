"""Measures cold starts of built artifacts with the real runtime client, from process start to its first poll."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import tempfile
import threading
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from dspy_lambda.errors import ConfigError
from dspy_lambda_infra.artifact.distributions import compile_tree
from dspy_lambda_infra.artifact.target import Target
from dspy_lambda_infra.artifact.uv import UvError, uv
from dspy_lambda_infra.progress import step

_SECONDS = 60.0
_IMPORT = "import {package}, os; os.write(1, b'.'); os._exit(0)"
_LINE = re.compile(r"import time:\s+(\d+) \|\s+\d+ \|\s*([\w.]+)")


@dataclass(frozen=True)
class Start:
    """What to start: an artifact's handler, or (as a baseline) the import of one package from it."""

    artifact: Path
    handler: str | None
    variables: dict[str, str] = field(default_factory=dict)
    package: str = "dspy"


class Runtime:
    """The target's Python with awslambdaric next to the artifact, as Lambda has it next to the task root."""

    def __init__(self, target: Target, cache: Path) -> None:
        """Load the runtime client from the cache, or install it there.

        Raises:
            ConfigError: this machine does not have that Python, or the client cannot be installed.
        """
        interpreter = target.interpreter()
        if interpreter is None:
            raise ConfigError(f"no Python {target.python} on this machine: its cold start cannot be measured here.")
        self._interpreter = interpreter
        self._client = cache.resolve() / f"awslambdaric-{target.python}"
        if not self._client.is_dir():
            cache.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=cache) as folder:
                place = Path(folder) / "client"
                try:
                    uv("pip", "install", "-q", "--target", str(place), "--python", interpreter, "awslambdaric")
                except UvError as error:
                    raise ConfigError(f"awslambdaric cannot be installed for Python {target.python}: {error}") from None
                compile_tree(interpreter, place)
                place.rename(self._client)

    def seconds(self, start: Start) -> float:
        """Return the seconds from process start until it is ready.

        Raises:
            ConfigError: it was not ready within a minute; contains its output.
        """
        if start.handler is None:
            begin = time.perf_counter()
            process = self._spawn(["-c", _IMPORT.format(package=start.package)], start, {})
            assert process.stdout
            process.stdout.read(1)
            seconds = time.perf_counter() - begin
            process.communicate()
            return seconds
        with _RuntimeApi() as api:
            begin = time.perf_counter()
            process = self._spawn(["-m", "awslambdaric", start.handler], start, {"AWS_LAMBDA_RUNTIME_API": api.address})
            ready = api.ready.wait(_SECONDS)
            seconds = api.at - begin
            process.kill()
            said = process.communicate()[0].decode(errors="replace")
        if not ready or api.failed:
            raise ConfigError(f"{start.artifact}: init failed:\n{api.failed or said[-2000:]}")
        return seconds

    def imports(self, start: Start) -> Counter[str]:
        """Return how many milliseconds each top-level package's own modules take to import."""
        assert start.handler
        code = f"import {start.handler.rpartition('.')[0]}"
        process = self._spawn(["-X", "importtime", "-c", code], start, {})
        said = process.communicate()[0].decode(errors="replace")
        spent: Counter[str] = Counter()
        for microseconds, module in _LINE.findall(said):
            spent[module.partition(".")[0]] += int(microseconds)
        return Counter({package: round(microseconds / 1000) for package, microseconds in spent.items()})

    def _spawn(self, arguments: list[str], start: Start, more: dict[str, str]) -> subprocess.Popen[bytes]:
        environment = {
            "PATH": os.environ.get("PATH", ""),
            "LAMBDA_TASK_ROOT": str(start.artifact),
            "PYTHONPATH": f"{start.artifact}{os.pathsep}{self._client}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "AWS_REGION": "us-east-1",
            "AWS_LAMBDA_FUNCTION_NAME": "doctor",
            **start.variables,
            **more,
        }
        output: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "stdin": subprocess.DEVNULL}
        return subprocess.Popen([self._interpreter, *arguments], cwd=start.artifact, env=environment, **output)


def median_seconds(runtime: Runtime, starts: dict[str, Start], rounds: int) -> dict[str, float]:
    """Return medians in seconds; alternates between all starts in each round, so that noise affects all equally."""
    found: dict[str, list[float]] = {name: [] for name in starts}
    for start in starts.values():
        runtime.seconds(start)  # warm the disk cache
    for number in range(1, rounds + 1):
        step(f"round {number} of {rounds} ...")
        for name, start in starts.items():
            found[name].append(runtime.seconds(start))
    return {name: statistics.median(seconds) for name, seconds in found.items()}


class _RuntimeApi:
    """The part of Lambda's Runtime API that shows when a process is ready, or that its init failed.

    It registers extensions, whose requests for an event never end.
    """

    def __init__(self) -> None:
        self.ready = threading.Event()
        self._left = threading.Event()
        self.at = 0.0
        self.failed = ""

    def __enter__(self) -> _RuntimeApi:
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path.endswith("/extension/event/next"):
                    api._left.wait()
                    return
                api.at = time.perf_counter()
                api.ready.set()

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.path.endswith("/extension/register"):
                    self.send_response(200)
                    self.send_header("Lambda-Extension-Identifier", str(uuid.uuid4()))
                    self.send_header("Content-Length", "2")
                    self.end_headers()
                    self.wfile.write(b"{}")
                    return
                api.failed = body.decode(errors="replace")
                api.ready.set()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.address = f"127.0.0.1:{self._server.server_port}"
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        self._server.shutdown()
        self._server.server_close()
