"""Watch the loop from the main thread, and report what blocks it and where."""

from __future__ import annotations

import asyncio
import faulthandler
import os
import signal
import sys
import sysconfig
import time
from types import FrameType

from dspy_lambda.invocation import Invocation
from dspy_lambda.runner import Job, Runner
from dspy_lambda.telemetry import Log

_FRAMES = 8
_MAX_SITES = 1000
_HINT = "await it, call it with asyncio.to_thread, or make the program sync (forward)"
# If the main thread has not ended the invocation by then, some code is holding the interpreter's lock.
_BEFORE_KILL_SECONDS = 0.1
_MOMENT_SECONDS = 0.02
# With and without symbolic links resolved: frames are compared as text, because each file system access would release
# the interpreter's lock.
_LIBRARIES = tuple(
    found + os.sep
    for path in {*sysconfig.get_paths().values(), os.path.dirname(__file__)}
    for found in {path, os.path.realpath(path)}
)


class Watch:
    """Waits for jobs, and reports a blocked loop once for each place in the code.

    Args:
        log: called with level, message and fields.
        blocked_seconds: how long the loop may be blocked before it is reported.
    """

    def __init__(self, log: Log, blocked_seconds: float) -> None:
        self._log = log
        self._blocked_seconds = blocked_seconds
        self._sites: set[str] = set()

    def wait(self, job: Job, runner: Runner, invocation: Invocation, until: float) -> bool:
        """Wait for the job and return whether it was done in time; `until` by `time.monotonic()`."""
        is_blocked = False
        while True:
            left = until - time.monotonic()
            if job.wait(min(left, self._blocked_seconds)):
                return True
            if time.monotonic() >= until:
                return False
            responds = runner.ping()
            if not responds and not is_blocked:
                self.report(runner, invocation)
            is_blocked = not responds

    def is_blocked(self, job: Job, runner: Runner) -> bool:
        """Whether the loop is blocked rather than merely late: it gets a moment to respond."""
        return not runner.ping() or (not job.wait(_MOMENT_SECONDS) and not runner.ping())

    def keep_watching(self, runner: Runner, thread: int) -> None:
        """Report each time the runner's loop, which runs in `thread`, is blocked; never returns (for `serve`)."""
        is_blocked = False
        while True:
            time.sleep(self._blocked_seconds)
            responds = runner.ping()
            if not responds and not is_blocked:
                self.report(runner, None, thread)
            is_blocked = not responds

    def report(self, runner: Runner, invocation: Invocation | None, thread: int | None = None) -> None:
        """Log and count where the loop's thread is blocked, without any values."""
        frame = sys._current_frames().get(thread or runner.thread.ident or 0)
        call = runner.loop.call_of(asyncio.current_task(runner.loop))
        program = call.program if call else "unknown"
        if invocation is not None:
            invocation.counts["LoopBlocked", program] = 1
            invocation.blocker = call
        site, stack = places(frame)
        if invocation is not None:
            invocation.blocked_at = site
        if site in self._sites or len(self._sites) >= _MAX_SITES:
            return
        self._sites.add(site)
        fields = {"program": program, "at": site, "stack": stack, "seconds": self._blocked_seconds, "hint": _HINT}
        if call is not None:
            fields |= call.ids()
        self._log("WARNING", "event loop blocked", fields)


def places(frame: FrameType | None) -> tuple[str, list[str]]:
    """Return the innermost place in the project's code, and the innermost frames, outermost first."""
    found: list[str] = []
    own = ""
    while frame is not None:
        code = frame.f_code
        place = f"{code.co_filename}:{frame.f_lineno} {code.co_name}"
        if len(found) < _FRAMES:
            found.append(place)
        if not own and not code.co_filename.startswith((*_LIBRARIES, "<")):
            own = place
        frame = frame.f_back
    return own or (found[0] if found else "unknown"), found[::-1]


class KillDump:
    """Dumps all stacks just before Lambda's timeout, to locate code that never releases the interpreter's lock.

    Such code (a catastrophic regular expression, a huge integer) keeps the main thread from answering and Python
    signal handlers from running; faulthandler's handler is written in C. Measured: 1.3 us per invocation;
    `faulthandler.dump_traceback_later`, which starts a thread, takes 80 us.

    Args:
        descriptor: where the stacks are written; faulthandler dumps at most 100 threads.
    """

    def __init__(self, descriptor: int) -> None:
        # Leave SIGALRM alone if other code uses it, such as a tracing library for timeouts.
        self._is_ours = signal.getsignal(signal.SIGALRM) is signal.SIG_DFL
        if self._is_ours:
            faulthandler.register(signal.SIGALRM, file=os.dup(descriptor), all_threads=True, chain=False)

    def arm(self, seconds: float) -> None:
        """Schedule a dump just before this many seconds have passed, unless `disarm` is called first."""
        if not self._is_ours:
            return
        if seconds > _BEFORE_KILL_SECONDS:
            seconds = max(seconds - _BEFORE_KILL_SECONDS, seconds * 0.9)
        signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))

    def disarm(self) -> None:
        """Cancel the dump: the invocation has been answered."""
        if self._is_ours:
            signal.setitimer(signal.ITIMER_REAL, 0)
