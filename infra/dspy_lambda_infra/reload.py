"""`--reload`: run a command in a child process and restart it when a file of the project changes."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

from watchfiles import watch

from dspy_lambda.config import CONFIG_FILE
from dspy_lambda.errors import ConfigError
from dspy_lambda_infra.artifact.files import project_files
from dspy_lambda_infra.local.sandbox import die_with_parent

_LOOK_MS = 500  # how often to check whether the process has exited
_GRACE_SECONDS = 15  # `serve` gives calls 5 s to finish
_State = dict[Path, tuple[int, int]]


def run_reloading(words: Sequence[str], root: Path, host: str, port: int) -> int:
    """Run a command until Ctrl-C or SIGTERM, restarting it at each change; return the last process's status.

    Args:
        words: its command line, including `--reload`.
        port: the port to serve on; 0 picks a free one, which then stays the same.

    Raises:
        ConfigError: the project has no config.
    """
    root = root.resolve()
    if not (root / CONFIG_FILE).is_file():
        raise ConfigError(f"{root / CONFIG_FILE}: no such file; --project names the DSPy project's folder.")
    command = [word for word in words if word != "--reload"]
    command += ["--port", str(port or _free_port(host))]
    stop = threading.Event()
    child = _Child(command)
    with _forwarding(child, stop):
        before = _state(root)
        child.start()
        # Hidden files, caches and virtual environments are left out. The first comparison catches earlier changes.
        for look, events in enumerate(watch(root, stop_event=stop, rust_timeout=_LOOK_MS, yield_on_timeout=True)):
            child.report_end()
            now = _state(root) if events or look == 0 else before
            if now == before:
                continue
            changed = sorted(path for path in before.keys() | now.keys() if before.get(path) != now.get(path))
            print(f"{', '.join(map(str, changed))} changed: restarting", file=sys.stderr, flush=True)
            before = now
            child.stop()
            if not stop.is_set():
                child.start()
        return child.wait()


class _Child:
    """The command's process."""

    def __init__(self, words: list[str]) -> None:
        self._command = die_with_parent([sys.executable, "-m", "dspy_lambda_infra.cli", *words])
        self._process: subprocess.Popen[bytes] | None = None
        self._number: int | None = None
        self._reported = False

    def start(self) -> None:
        # In its own session, so that Ctrl-C reaches it once, from here, and not also from the terminal.
        self._process = subprocess.Popen(self._command, start_new_session=True)
        self._reported = False
        if self._number is not None:  # which arrived in the meantime
            self._process.send_signal(self._number)

    def forward(self, number: int) -> None:
        """Forward a signal, even to a process that is just being started."""
        self._number = number
        if self._process:
            self._process.send_signal(number)

    def stop(self) -> None:
        """End the process so that it can be restarted."""
        if self._process:
            self._process.terminate()
            self.wait()

    def wait(self) -> int:
        """Return its exit status as a shell reports it; kill it if it does not end."""
        if self._process is None:
            return 0
        try:
            status = self._process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        return status if status >= 0 else 128 - status

    def report_end(self) -> None:
        """Report once that it has exited; its own message has been printed above."""
        if self._process and self._process.poll() is not None and not self._reported:
            self._reported = True
            print(f"ended with status {self._process.returncode}; waiting for a change", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _forwarding(child: _Child, stop: threading.Event) -> Iterator[None]:
    """Forward Ctrl-C and SIGTERM to the child, and stop watching."""

    def forward(number: int, _: FrameType | None) -> None:
        stop.set()
        child.forward(number)

    before = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _state(root: Path) -> _State:
    """Return the modification time and size of `.env` and of each file that an artifact would contain."""
    found: _State = {}
    with contextlib.suppress(OSError):  # a folder was deleted in the meantime, which is itself a change
        for path in [Path(".env"), *project_files(root)]:
            with contextlib.suppress(OSError):
                status = (root / path).stat()
                found[path] = (status.st_mtime_ns, status.st_size)
    return found


def _free_port(host: str) -> int:
    with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as taken:
        port: int = taken.getsockname()[1]
        return port
