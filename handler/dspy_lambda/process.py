"""The process that all invocations share: what a program changes in it is put back, and when it is left."""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import Any

# A process that has replaced another one lives at least this long: what is used up at once, again, is not its doing.
_LEAST_SECONDS = 60.0
RESTARTS = "DSPY_LAMBDA_RESTARTS"  # how often this process has replaced itself
# "1,024 file descriptors and 1,024 processes and threads".
# https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
_MOST_THREADS = 700
_MOST_STUCK = 3  # each may spin for ever, and takes its share of the core from every call
_PART_OF_MEMORY = 0.9
_PART_OF_TMP = 0.02


class ProcessState:
    """Environment variables, working directory and standard streams as they were before an invocation."""

    def __init__(self) -> None:
        self._environ = dict(_raw_environ())
        self._folder = os.getcwd()
        self._streams = sys.stdout, sys.stderr
        self._descriptors = [(number, os.dup(number)) for number in (1, 2)]

    def note(self) -> None:
        """Note the variables at the beginning of an invocation: the runtime client sets one for each."""
        environ = _raw_environ()
        if environ != self._environ:
            self._environ = dict(environ)

    def put_back(self) -> list[str]:
        """Undo what programs changed; the names of what it was."""
        changed = []
        if _raw_environ() != self._environ:
            _put_back_environ(self._environ)
            changed.append("os.environ")
        if _folder() != self._folder:
            os.chdir(self._folder)
            changed.append("working directory")
        if self._put_back_streams():
            changed.append("standard output or error")
        return changed

    def _put_back_streams(self) -> bool:
        changed = False
        for number, copy in self._descriptors:
            try:
                os.fstat(number)
            except OSError:
                os.dup2(copy, number)
                changed = True
        for name, number, stream in zip(("stdout", "stderr"), (1, 2), self._streams, strict=True):
            if getattr(sys, name) is not stream or getattr(stream, "closed", False):
                usable = stream if not getattr(stream, "closed", False) else os.fdopen(os.dup(number), "w", 1)
                setattr(sys, name, usable)
                changed = True
        self._streams = sys.stdout, sys.stderr
        return changed


def _raw_environ() -> dict[Any, Any]:
    """The variables undecoded, which is ten times faster to compare; CPython has them there since 3.0."""
    raw: dict[Any, Any] = getattr(os.environ, "_data", None) or dict(os.environ)
    return raw


def _put_back_environ(saved: dict[Any, Any]) -> None:
    decode = os.fsdecode
    wanted = {decode(key): decode(value) for key, value in saved.items()}
    for name in set(os.environ) - set(wanted):
        del os.environ[name]
    for name, value in wanted.items():
        if os.environ.get(name) != value:
            os.environ[name] = value


def _folder() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was removed
        return ""


class LastResort:
    """Replaces the process by a new one of its own kind, between two events, when nothing less helps.

    `execv` before the next event is asked for loses none, where ending the process would cost one. The runtime
    client's own loop is where "before the next event" is.

    Args:
        variables: what the process was started with; secrets that were read since are read again.
    """

    def __init__(self, variables: dict[str, str]) -> None:
        self._variables = variables
        memory_mb = variables.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "")
        self._memory_bytes = int(memory_mb) * 2**20 if memory_mb.isdecimal() else None
        self._folder = variables.get("TMPDIR") or "/tmp"  # noqa: S108 - Lambda's one writable folder
        self._before = _entries(self._folder)
        self._quiet_until = time.monotonic() + _LEAST_SECONDS if self.restarts else 0.0
        self._page = os.sysconf("SC_PAGE_SIZE")
        try:
            self._statm: int | None = os.open("/proc/self/statm", os.O_RDONLY)
        except OSError:  # macOS
            self._statm = None

    @property
    def restarts(self) -> int:
        """How often the process has replaced itself."""
        text = self._variables.get(RESTARTS, "0")
        return int(text) if text.isdecimal() else 0

    def why(self, stuck_runners: int) -> str | None:
        """What is used up, or None; told once a minute."""
        if time.monotonic() < self._quiet_until:
            return None
        if threading.active_count() > _MOST_THREADS:
            return "threads"
        if stuck_runners > _MOST_STUCK:
            return "time of the processor"
        if self._memory_bytes and self._statm is not None:
            used = int(os.pread(self._statm, 100, 0).split()[1]) * self._page
            if used > self._memory_bytes * _PART_OF_MEMORY:
                return "memory"
        disk = os.statvfs(self._folder)
        if disk.f_bavail < disk.f_blocks * _PART_OF_TMP:
            return "disk"
        return None

    def plan(self, reason: str) -> bool:
        """Replace the process before its next event; False where that cannot be done, or was done just now."""
        self._quiet_until = time.monotonic() + _LEAST_SECONDS
        client = getattr(sys.modules.get("awslambdaric.lambda_runtime_client"), "LambdaRuntimeClient", None)
        if client is None:
            return False
        client.wait_next_invocation = lambda _: self._replace(reason)
        return True

    def _replace(self, reason: str) -> None:
        if reason == "disk":
            _remove(self._folder, _entries(self._folder) - self._before)
        variables = {**self._variables, RESTARTS: str(self.restarts + 1)}
        os.execve(sys.executable, sys.orig_argv, variables)  # noqa: S606 - this program again


def _entries(folder: str) -> set[str]:
    try:
        return set(os.listdir(folder))
    except OSError:
        return set()


def _remove(folder: str, names: set[str]) -> None:
    import shutil

    for name in names:
        path = os.path.join(folder, name)
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path, ignore_errors=True)
        else:
            os.unlink(path)
