"""What `dspy-lambda --version` prints, which works without the extra."""

from __future__ import annotations

from typing import NoReturn

PROGRAM = "dspy-lambda"


def show_version() -> NoReturn:
    """Print the version, DSPy's and Python's, and exit."""
    from importlib.metadata import version
    from platform import python_version

    from dspy_lambda import __version__

    print(f"{PROGRAM} {__version__} (DSPy {version('dspy')}, Python {python_version()})")
    raise SystemExit(0)
