"""The process that all invocations share: what a program changes in it is put back, and when it is left."""

from __future__ import annotations

import logging
import os
import stat
import sys
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from dspy_lambda.settings import RESTARTED, RESTARTS, Settings

# What the runtime client sets for each invocation, and nothing else (awslambdaric 4.2.2, bootstrap.py): credentials
# stay those that Lambda started the process with.
PER_INVOCATION = ("_X_AMZN_TRACE_ID",)
# A process that has replaced another one lives at least this long: what is used up at once, again, is not its doing.
_LEAST_SECONDS = 60.0
JOURNAL_FOLDER = "dspy-lambda"  # see sources/sqs/journal.py
# "1,024 file descriptors and 1,024 processes and threads".
# https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
MOST_THREADS = 700
_MOST_STUCK = 3  # each may spin for ever, and takes its share of the core from every call
_PART_OF_MEMORY, _PART_OF_GROWTH = 0.9, 0.1
_TIMES_INIT = 2
_PART_OF_TMP = 0.02


class ProcessState:
    """Environment variables, working directory and standard streams as they were before an invocation."""

    def __init__(self) -> None:
        self._environ = dict(_raw_environ())
        self._interpreter = sys.getrecursionlimit(), sys.getswitchinterval()
        self._spies = threading.gettrace(), threading.getprofile()
        self._folder = os.getcwd()
        self._streams = sys.stdout, sys.stderr
        self._descriptors = [(number, os.dup(number)) for number in (1, 2)]

    def note(self, names: Iterable[str]) -> None:
        """Take these variables' values for what they are to be."""
        environ = _raw_environ()
        for name in names:
            key = _encode(name)
            if key in environ:
                self._environ[key] = environ[key]
            else:
                self._environ.pop(key, None)

    def put_back_environ(self) -> bool:
        """Undo what was changed in the variables; whether anything was."""
        if _raw_environ() == self._environ:
            return False
        _put_back_environ(self._environ)
        return True

    def put_back(self) -> list[str]:
        """Undo what programs changed; the names of what it was."""
        changed = []
        if self.put_back_environ():
            changed.append("os.environ")
        if _folder() != self._folder:
            os.chdir(self._folder)
            changed.append("working directory")
        if (sys.getrecursionlimit(), sys.getswitchinterval()) != self._interpreter:
            sys.setrecursionlimit(self._interpreter[0])
            sys.setswitchinterval(self._interpreter[1])
            changed.append("recursion limit or switch interval")
        if (threading.gettrace(), threading.getprofile()) != self._spies:
            _put_back_spies(*self._spies)
            changed.append("trace or profile function")
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


def _put_back_spies(trace: Any, profile: Any) -> None:
    """For new threads; from Python 3.12 on a program may have set them for those that there are, too."""
    for_all: Any = getattr(threading, "setprofile_all_threads", threading.setprofile)
    for_all(profile)
    for_all = getattr(threading, "settrace_all_threads", threading.settrace)
    for_all(trace)


def _raw_environ() -> dict[Any, Any]:
    """The variables undecoded, which is ten times faster to compare; CPython has them there since 3.0."""
    raw: dict[Any, Any] = getattr(os.environ, "_data", None) or dict(os.environ)
    return raw


def _encode(name: str) -> Any:
    """A variable's name as it is in there."""
    encode: Any = getattr(os.environ, "encodekey", str)
    return encode(name)


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


_is_fork = False


def end_forks() -> None:
    """See to it that a program's fork, which comes back into the handler, ends there: the answer is its parent's."""
    os.register_at_fork(after_in_child=_note_fork)


def _note_fork() -> None:
    global _is_fork
    _is_fork = True


def leave_if_forked() -> None:
    """End this process if it is a program's fork, without a trace."""
    if _is_fork:
        os._exit(0)


class LastResort:
    """Replaces the process by a new one of its own kind, between two events, when nothing less helps.

    `execv` before the next event is asked for loses none, where ending the process would cost one. The runtime
    client's own loop is where "before the next event" is.

    Args:
        variables: what the process was started with (`as_started`); secrets that were read since are read again.

    Attributes:
        restarts: how often the process has replaced itself.
    """

    def __init__(self, variables: dict[str, str], settings: Settings) -> None:
        self._variables = variables
        self.restarts = settings.restarts
        self._memory_bytes = None if settings.memory_mb is None else settings.memory_mb * 2**20
        self._folder = settings.temporary_folder
        self._before = _entries(self._folder)
        self._least_seconds = _LEAST_SECONDS * 2 ** min(self.restarts, 10)
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
        """What `plan` needs of the invocation's time: that lasts until the next event is asked for, and so the new
        process's init must fit into it."""
        return self._init_seconds * _TIMES_INIT

    def why(self, stuck_runners: int) -> str | None:
        """What is used up, or None; not soon after a process was replaced for it."""
        if time.monotonic() < self._quiet_until:
            return None
        if threading.active_count() > MOST_THREADS:
            return "threads"
        if stuck_runners > _MOST_STUCK:
            return "time of the processor"
        if self._memory_bytes and self._statm is not None:
            used = int(os.pread(self._statm, 100, 0).split()[1]) * self._page
            # What it had after its first invocation is what the next process would have, too.
            self._first_bytes = self._first_bytes or used
            grown = used - self._first_bytes
            if used > self._memory_bytes * _PART_OF_MEMORY and grown > self._memory_bytes * _PART_OF_GROWTH:
                return "memory"
        disk = os.statvfs(self._folder)
        if disk.f_bavail < disk.f_blocks * _PART_OF_TMP:
            return "disk"
        return None

    def plan(self, reason: str) -> bool:
        """Replace the process before its next event; False where that cannot be done, or was done just now."""
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
        variables = self._variables | {RESTARTS: str(self.restarts + 1), RESTARTED: str(int(_uptime() * 1000))}
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
                continue  # an extension's
            if stat.S_ISDIR(found.st_mode):
                shutil.rmtree(path, ignore_errors=True)
            else:
                os.unlink(path)


def as_started(variables: dict[str, str]) -> dict[str, str]:
    """The variables as Lambda gave them, before its runtime client changed them.

    Its bootstrap adds the layers only where PYTHONPATH is not set yet, and sets it. A process that was restored from a
    snapshot is not to wait for one again. The descriptor for framed log lines is taken out when it is opened.
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
    """Seconds since the machine's boot; 0 where nobody tells. A process that replaces itself keeps this clock."""
    try:
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    except (OSError, AttributeError):  # macOS
        return 0.0


def _seconds_since_start(restarted_ms: int | None) -> float:
    """How long this program has run, which at the end of its init is how long that took; 0 where nobody tells.

    Args:
        restarted_ms: when the process replaced itself, if it did: `execve` leaves /proc its first start.
    """
    if restarted_ms is not None:
        return max(0.0, _uptime() - restarted_ms / 1000)
    try:
        with open("/proc/self/stat", encoding="ascii", errors="replace") as file:
            ticks = int(file.read().rpartition(")")[2].split()[19])
        return _uptime() - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError):
        return 0.0
