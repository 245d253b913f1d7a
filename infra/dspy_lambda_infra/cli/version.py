"""`dspy-lambda --version`, which works without the extra."""

from __future__ import annotations

from typing import NoReturn

PROGRAM = "dspy-lambda"


def show_version() -> NoReturn:
    """Print the versions of dspy-lambda, DSPy and Python, and exit."""
    from importlib.metadata import packages_distributions, version
    from platform import python_version

    from dspy_lambda import __version__

    owners = packages_distributions().get("dspy", [])  # dspy-lite provides it too
    dspy = f"DSPy {version(owners[0])}" if owners else "no DSPy"
    print(f"{PROGRAM} {__version__} ({dspy}, Python {python_version()})")
    raise SystemExit(0)
