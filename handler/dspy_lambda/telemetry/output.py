"""Where log lines go: the process's own standard output, whatever programs do to `sys.stdout`."""

from __future__ import annotations

import os
import threading
from typing import Any

_PATIENCE_SECONDS = 0.05


class Output:
    """Writes whole lines to a file descriptor of its own, so that a program that closes standard output stops nothing.

    Args:
        descriptor: what to write to; it is duplicated.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = os.dup(descriptor)
        # Two threads' long lines must not mix. From Python 3.12 on the garbage collector may run a program's finalizer
        # while it is held: which may log (so it can be taken again), and may never return (so nobody waits for long).
        self._lock = threading.RLock()
        self._writing = False

    def write(self, text: str) -> int:
        """Write text that ends in a line end; what cannot be written is lost, and nothing else."""
        data = text.encode(errors="replace")
        lock = self._take()
        try:
            # One that comes back after its lock was given up has lost its line: it would be in another's.
            while data and lock is self._lock:
                self._writing = True
                try:
                    data = data[os.write(self._descriptor, data) :]
                finally:
                    self._writing = False
        except OSError:
            pass
        finally:
            lock.release()
        return len(text)

    def _take(self) -> Any:
        """Take the lock. Whoever writes to a slow reader is waited for; whoever keeps it for something else is not."""
        while True:
            lock = self._lock
            if lock.acquire(timeout=_PATIENCE_SECONDS):
                if lock is self._lock:
                    return lock
                lock.release()
            elif not self._writing and lock is self._lock:
                self._lock = threading.RLock()

    def flush(self) -> None:
        """Nothing is kept back."""
