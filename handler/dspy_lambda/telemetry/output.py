"""Where log lines go: the process's own standard output, whatever programs do to `sys.stdout`."""

from __future__ import annotations

import os
import threading


class Output:
    """Writes whole lines to a file descriptor of its own, so that a program that closes standard output stops nothing.

    Args:
        descriptor: what to write to; it is duplicated.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = os.dup(descriptor)
        # Two threads' long lines must not mix. Held for the write alone: no program's code runs under it.
        self._lock = threading.Lock()

    def write(self, text: str) -> int:
        """Write text that ends in a line end; what cannot be written is lost, and nothing else."""
        data = text.encode(errors="replace")
        with self._lock:
            try:
                while data:
                    data = data[os.write(self._descriptor, data) :]
            except OSError:
                pass
        return len(text)

    def flush(self) -> None:
        """Nothing is kept back."""
