"""Write log lines to the process's standard output, whatever programs do to `sys.stdout`."""

from __future__ import annotations

import os
import threading
from typing import Any

_PATIENCE_SECONDS = 0.05


class Output:
    """Writes whole lines to a duplicate of a file descriptor, so that a program can close standard output.

    Args:
        descriptor: the file descriptor to duplicate.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = os.dup(descriptor)
        # Keeps two threads' long lines apart. Since Python 3.12 the garbage collector may run a program's finalizer
        # while the lock is held. The finalizer may log, so the lock is reentrant, and may never return, so waits are
        # short.
        self._lock = threading.RLock()
        self._writing = False

    def write(self, text: str) -> int:
        """Write text that ends with a newline. Text that cannot be written is dropped."""
        data = text.encode(errors="replace")
        lock = self._take()
        try:
            # If the lock was replaced meanwhile, drop the rest of the line: it would end up in another line.
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
        """Take the lock. Wait for a holder that is writing to a slow reader, but replace a lock held otherwise."""
        while True:
            lock = self._lock
            if lock.acquire(timeout=_PATIENCE_SECONDS):
                if lock is self._lock:
                    return lock
                lock.release()
            elif not self._writing and lock is self._lock:
                self._lock = threading.RLock()

    def flush(self) -> None:
        """Do nothing: writes are not buffered."""
