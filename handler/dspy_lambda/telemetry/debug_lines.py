"""Hold the debug lines of running calls: written if their call fails, dropped if it succeeds.

Powertools' own buffer does this for a whole invocation: it keys lines by the trace id in the environment, so that the
calls of a batch share one buffer, and one that fails writes the lines of all others (tests: test_debug_lines.py). It
also knows only lines of its own Logger.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from dspy_lambda.call import Call
from dspy_lambda.invocation import Invocation
from dspy_lambda.telemetry import Log

# Of one call. Powertools' default.
# https://docs.aws.amazon.com/powertools/python/latest/core/logger/#buffering-logs
MAX_BYTES = 20_480


class _Held:
    """The lines of one call, which may run in several threads."""

    def __init__(self) -> None:
        self._lines: deque[tuple[int, str]] = deque()
        self._bytes = 0
        self._left_out = 0
        # Reentrant because the garbage collector may run a finalizer that logs while the lock is held; otherwise only
        # code in this file does.
        self._lock = threading.RLock()

    def add(self, line: str) -> None:
        """Add a line; the oldest ones are left out for it. A line that is too long is left out itself."""
        size = len(line.encode(errors="replace"))
        with self._lock:
            if size > MAX_BYTES:
                self._left_out += 1
                return
            self._lines.append((size, line))
            self._bytes += size
            while self._bytes > MAX_BYTES:
                self._bytes -= self._lines.popleft()[0]
                self._left_out += 1

    def take(self) -> tuple[list[str], int]:
        """Return the lines, and the number of those that were left out, and forget them."""
        with self._lock:
            lines, left_out = [line for _, line in self._lines], self._left_out
            self._lines.clear()
            self._bytes = self._left_out = 0
        return lines, left_out


class DebugLines:
    """The debug lines of an environment's running calls.

    Args:
        write: writes one line.
        log: called with level, message and fields.
    """

    def __init__(self, write: Callable[[str], None], log: Log) -> None:
        self._write = write
        self._log = log
        self._held: dict[Call, _Held] = {}

    def add(self, call: Call, line: str) -> None:
        """Hold a line of a running call; write or drop that of a thread that outlives its call."""
        held = self._held.setdefault(call, _Held())
        held.add(line)
        if call.settled:  # perhaps meanwhile, when its lines had already been taken
            self._end(call, held)

    def settle(self, call: Call) -> None:
        """Write the lines of a settled call if it failed, else drop them."""
        if (held := self._held.get(call)) is not None:
            self._end(call, held)

    def close(self, invocation: Invocation) -> None:
        """Drop what is left of an invocation."""
        for call in list(self._held):
            if call.invocation is invocation:
                self._held.pop(call, None)

    def _end(self, call: Call, held: _Held) -> None:
        self._held.pop(call, None)
        lines, left_out = held.take()
        if call.succeeded:
            return
        if left_out:
            about = {"program": call.program, **call.ids(), "lines": left_out}
            self._log("WARNING", "left out debug lines of a failed call", about)
        for line in lines:
            self._write(line)
