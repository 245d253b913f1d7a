"""The import of DSPy: one that this package can be used with, without a search for sources."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from dspy_lambda.errors import ConfigError

_OLDEST = (3, 4)


@contextmanager
def dspy_import() -> Iterator[None]:
    """For `import dspy`, and what else of DSPy is imported with it.

    Raises:
        ConfigError: this DSPy is too old.
    """
    try:
        with quick_stacks():
            yield
    finally:
        check_version()  # first of all: what an older one lacks is only what follows from it


def check_version() -> None:
    """Refuse a DSPy from before 3.4, which has another way to its models.

    Raises:
        ConfigError: it is older.
    """
    version = getattr(sys.modules.get("dspy"), "__version__", None)
    if not isinstance(version, str):  # it has not come so far
        return
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    if numbers < _OLDEST:
        advice = "dspy-lambda needs DSPy 3.4 or newer: pip install 'dspy>=3.4'"
        raise ConfigError(f"DSPy {version} is installed, and {advice}.")


@contextmanager
def quick_stacks() -> Iterator[None]:
    """`inspect.stack()` without a search for each frame's source.

    DSPy asks for the whole stack for every optional package that is not installed (numpy, openai, ...), to name a
    line in an error that nobody may ever see. Measured, Python 3.13 under the runtime client, where the stack is
    deep: 0.9 s of a cold start of 1.4 s; 0.07 s in a bare interpreter.

    It stands on no name of DSPy's: Python itself has no line to show where a source cannot be read.
    """
    stack = inspect.stack
    inspect.stack = _stack
    try:
        yield
    finally:
        inspect.stack = stack


def _stack(context: int = 1) -> list[inspect.FrameInfo]:
    frames = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        frames.append(inspect.FrameInfo(frame, code.co_filename, frame.f_lineno, code.co_name, None, None))
        frame = frame.f_back
    return frames
