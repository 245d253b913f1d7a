"""Where log lines go: the process's own standard output, whatever programs do to `sys.stdout`."""

from __future__ import annotations

import os
import threading

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

    def write(self, text: str) -> int:
        """Write text that ends in a line end; what cannot be written is lost, and nothing else."""
        data = text.encode(errors="replace")
        held = self._lock.acquire(timeout=_PATIENCE_SECONDS)
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError:
            pass
        finally:
            if held:
                self._lock.release()
        return len(text)

    def flush(self) -> None:
        """Nothing is kept back."""
