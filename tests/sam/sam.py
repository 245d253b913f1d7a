"""Runs the SAM CLI like a user: to completion, or serving until stopped."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SAM = ROOT / ".venv-tools" / "bin" / "sam"
START_SECONDS = 60
# For `sam local`: containers reach this machine by that name.
HOST = "host.docker.internal"
LOCAL = ("--skip-pull-image", "--add-host", f"{HOST}:host-gateway")


def variables() -> dict[str, str]:
    """No telemetry; no account, since without keys and STS `sam local` makes one up immediately; our own Python first.

    `sam build` finds `dspy-lambda` on PATH, as it would in a user's activated environment.
    """
    kept = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
    return {
        **kept,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "SAM_CLI_TELEMETRY": "0",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
        "AWS_ENDPOINT_URL_STS": "http://127.0.0.1:9",
    }


def sam(folder: Path, *arguments: str) -> str:
    """Run a SAM CLI command in that folder and return its standard output."""
    return command(folder, str(SAM), *arguments)


def dspy_lambda(folder: Path, *arguments: str) -> str:
    """Run a `dspy-lambda` command in that folder and return its standard output."""
    return command(folder, sys.executable, "-m", "dspy_lambda_infra.cli", *arguments)


def command(folder: Path, *words: str) -> str:
    """Run a command that must succeed and return its standard output."""
    done = subprocess.run(words, cwd=folder, env=variables(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(words)}: exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@contextmanager
def serving(folder: Path, *arguments: str) -> Iterator[str]:
    """Run `sam local start-api` or `start-lambda` in that folder and yield its address; its output goes to a file."""
    port = free_port()
    words = [str(SAM), "local", *arguments, "--warm-containers", "LAZY", "--port", str(port)]
    with process(words, folder, folder / f"{arguments[0]}.log", variables(), port):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def process(words: list[str], folder: Path, log: Path, environment: dict[str, str], port: int) -> Iterator[None]:
    """Run a process for the duration of the block, which starts once it listens on that port."""
    with log.open("w") as output:
        # In its own session: Ctrl-C is for the tests, which then stop it.
        running = subprocess.Popen(
            words, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _listens(port):
            assert running.poll() is None, f"{' '.join(words)} ended:\n{log.read_text()}"
            assert time.monotonic() < deadline, f"{' '.join(words)} does not listen:\n{log.read_text()}"
            time.sleep(0.1)
        yield
    finally:
        running.terminate()
        try:
            running.wait(20)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


def free_port() -> int:
    """Return a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
