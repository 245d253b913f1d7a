"""The process that all invocations share: restore what programs change in it, and replace it when it is exhausted."""

from __future__ import annotations

import logging
import os
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from dspy_lambda.settings import RESTARTED, RESTARTS, Settings

# The only variable that the runtime client sets for each invocation (awslambdaric 4.2.2, bootstrap.py). Credentials do
# not change after Lambda has started the process.
PER_INVOCATION = ("_X_AMZN_TRACE_ID",)
# A replacement process lives at least this long: if it exhausts a resource sooner, replacing it again does not help.
_MIN_SECONDS = 60.0
JOURNAL_FOLDER = "dspy-lambda"  # see sources/sqs/journal.py
# "1,024 file descriptors and 1,024 processes and threads".
# https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
MAX_THREADS = 700
_MAX_STUCK = 3  # each may spin forever and take CPU time from every call
_MEMORY_SHARE, _GROWTH_SHARE = 0.9, 0.1
_INIT_FACTOR = 2
_TMP_SHARE = 0.02


class ProcessState:
    """The process state before an invocation: environment variables, working directory, standard streams and others."""

    def __init__(self) -> None:
        self._environ = dict(_raw_environ())
        self._interpreter = sys.getrecursionlimit(), sys.getswitchinterval()
        self._trace_functions = threading.gettrace(), threading.getprofile()
        self._folder = os.getcwd()
        self._streams = sys.stdout, sys.stderr
        self._descriptors = [(number, os.dup(number)) for number in (1, 2)]

    def note(self, names: Iterable[str]) -> None:
        """Accept the current values of these variables, so that they are not undone."""
        environ = _raw_environ()
        for name in names:
            key = _encode(name)
            if key in environ:
                self._environ[key] = environ[key]
            else:
                self._environ.pop(key, None)

    def restore_environ(self) -> bool:
        """Undo changes to environment variables; return whether there were any."""
        if _raw_environ() == self._environ:
            return False
        _restore_environ(self._environ)
        return True

    def restore(self) -> list[str]:
        """Undo what programs changed, and return the names of the changed parts."""
        changed = []
        if self.restore_environ():
            changed.append("os.environ")
        if _folder() != self._folder:
            os.chdir(self._folder)
            changed.append("working directory")
        if (sys.getrecursionlimit(), sys.getswitchinterval()) != self._interpreter:
            sys.setrecursionlimit(self._interpreter[0])
            sys.setswitchinterval(self._interpreter[1])
            changed.append("recursion limit or switch interval")
        if (threading.gettrace(), threading.getprofile()) != self._trace_functions:
            _restore_trace_functions(*self._trace_functions)
            changed.append("trace or profile function")
        if self._restore_streams():
            changed.append("standard output or error")
        return changed

    def _restore_streams(self) -> bool:
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


def _restore_trace_functions(trace: Any, profile: Any) -> None:
    """Restore them for new threads and, since Python 3.12, for running threads, where a program may have set them."""
    for_all: Any = getattr(threading, "setprofile_all_threads", threading.setprofile)
    for_all(profile)
    for_all = getattr(threading, "settrace_all_threads", threading.settrace)
    for_all(trace)


def _raw_environ() -> dict[Any, Any]:
    """Return the variables undecoded, which are ten times faster to compare; CPython has kept them so since 3.0."""
    raw: dict[Any, Any] = getattr(os.environ, "_data", None) or dict(os.environ)
    return raw


def _encode(name: str) -> Any:
    """Encode a variable's name as a key of `_raw_environ`."""
    encode: Any = getattr(os.environ, "encodekey", str)
    return encode(name)


def _restore_environ(saved: dict[Any, Any]) -> None:
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
    except OSError:  # the folder was removed
        return ""


_is_fork = False


def end_forks() -> None:
    """End a program's forked child when it returns to the handler: only the parent answers."""
    os.register_at_fork(after_in_child=_note_fork)


def _note_fork() -> None:
    global _is_fork
    _is_fork = True


def leave_if_forked() -> None:
    """End this process silently if it is a program's forked child."""
    if _is_fork:
        os._exit(0)


class LastResort:
    """Replaces the process with a new one between two events, if a resource is exhausted.

    Calling `execve` before the next event is requested loses no event, while exiting would lose one. The hook for that
    is the runtime client's loop.

    Args:
        variables: the variables that the process was started with (`as_started`); the new process reads secrets again.

    Attributes:
        restarts: how often the process has replaced itself.
        hand_over: called before the process is replaced; returns further variables for the new one.
    """

    def __init__(self, variables: dict[str, str], settings: Settings) -> None:
        self._variables = variables
        self.hand_over: Callable[[], dict[str, str]] = dict
        self.restarts = settings.restarts
        self._memory_bytes = None if settings.memory_mb is None else settings.memory_mb * 2**20
        self._folder = settings.temporary_folder
        self._before = _entries(self._folder)
        self._least_seconds = _MIN_SECONDS * 2 ** min(self.restarts, 10)
        self._quiet_until = time.monotonic() + self._least_seconds if self.restarts else 0.0
        self._first_bytes = 0
        self._init_seconds = _seconds_since_start(settings.restarted_ms)
        self._page = os.sysconf("SC_PAGE_SIZE")
        try:
            self._statm: int | None = os.open("/proc/self/statm", os.O_RDONLY)
        except OSError:  # macOS
            self._statm = None

    @property
    def seconds(self) -> float:
        """The time that `plan` needs.

        An invocation lasts until the next event is requested, so the new process's init must fit into it.
        """
        return self._init_seconds * _INIT_FACTOR

    def exhausted_resource(self, stuck_runners: int) -> str | None:
        """Return the exhausted resource, or None; always None soon after a replacement."""
        if time.monotonic() < self._quiet_until:
            return None
        if threading.active_count() > MAX_THREADS:
            return "threads"
        if stuck_runners > _MAX_STUCK:
            return "CPU time"
        if self._memory_bytes and self._statm is not None:
            used = int(os.pread(self._statm, 100, 0).split()[1]) * self._page
            # A new process would also need what this one used after its first invocation.
            self._first_bytes = self._first_bytes or used
            grown = used - self._first_bytes
            if used > self._memory_bytes * _MEMORY_SHARE and grown > self._memory_bytes * _GROWTH_SHARE:
                return "memory"
        disk = os.statvfs(self._folder)
        if disk.f_bavail < disk.f_blocks * _TMP_SHARE:
            return "disk"
        return None

    def plan(self, reason: str) -> bool:
        """Replace the process before its next event; return False if that is not possible."""
        self._quiet_until = time.monotonic() + self._least_seconds
        if "AWS_LAMBDA_MAX_CONCURRENCY" in self._variables:  # Managed Instances: one of several processes
            return False
        client = getattr(sys.modules.get("awslambdaric.lambda_runtime_client"), "LambdaRuntimeClient", None)
        if client is None:
            return False
        client.wait_next_invocation = lambda _: self._replace(reason)
        return True

    def _replace(self, reason: str) -> None:
        if reason == "disk":
            _remove(self._folder, _entries(self._folder) - self._before - {JOURNAL_FOLDER})
        variables = self._variables | self.hand_over()
        variables |= {RESTARTS: str(self.restarts + 1), RESTARTED: str(int(_uptime() * 1000))}
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
        with suppress(OSError):
            found = os.lstat(path)
            if found.st_uid != os.geteuid() or stat.S_ISSOCK(found.st_mode):
                continue  # belongs to an extension
            if stat.S_ISDIR(found.st_mode):
                shutil.rmtree(path, ignore_errors=True)
            else:
                os.unlink(path)


def as_started(variables: dict[str, str]) -> dict[str, str]:
    """Return the variables as Lambda set them, before its runtime client changed them.

    The bootstrap sets PYTHONPATH, and adds the layers only if it is not set. A process restored from a snapshot must
    not wait for a snapshot again. The runtime client removes the descriptor for framed log lines when it opens it.
    Source: /var/runtime/bootstrap.py; awslambdaric 4.2.2, bootstrap.py.
    """
    started = dict(variables)
    if started.get("PYTHONPATH") == started.get("LAMBDA_RUNTIME_DIR"):
        started.pop("PYTHONPATH", None)
    if started.get("AWS_LAMBDA_INITIALIZATION_TYPE") == "snap-start":
        started["AWS_LAMBDA_INITIALIZATION_TYPE"] = "on-demand"
    for handler in logging.getLogger().handlers:
        descriptor = getattr(getattr(handler, "log_sink", None), "fd", None)
        if isinstance(descriptor, int):
            started["_LAMBDA_TELEMETRY_LOG_FD"] = str(descriptor)
    return started


def _uptime() -> float:
    """Return the seconds since the machine booted, a clock that survives `execve`; 0 if unknown."""
    try:
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    except (OSError, AttributeError):  # macOS
        return 0.0


def _seconds_since_start(restarted_ms: int | None) -> float:
    """Return how long this program has run, which at the end of init is init's duration; 0 if unknown.

    Args:
        restarted_ms: when the process replaced itself, if it did; after `execve`, /proc still has its first start.
    """
    if restarted_ms is not None:
        return max(0.0, _uptime() - restarted_ms / 1000)
    try:
        with open("/proc/self/stat", encoding="ascii", errors="replace") as file:
            ticks = int(file.read().rpartition(")")[2].split()[19])
        return _uptime() - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError):
        return 0.0
