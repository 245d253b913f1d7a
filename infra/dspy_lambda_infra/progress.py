"""What takes a while, told to whoever watches."""

from __future__ import annotations

import sys


def progress(text: str) -> None:
    """Print a line to standard error if that is a terminal: files and pipes need none."""
    if sys.stderr.isatty():
        print(text, file=sys.stderr, flush=True)
