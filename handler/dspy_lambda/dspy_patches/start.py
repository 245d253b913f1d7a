"""Import DSPy without searching for sources, and check its version."""

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
    """Wrap `import dspy` and imports of its submodules.

    Raises:
        ConfigError: DSPy is too old.
    """
    try:
        with quick_stacks():
            yield
    finally:
        check_version()  # in `finally`: with an older DSPy, an ImportError is only a consequence of its version


def check_version() -> None:
    """Refuse a DSPy before 3.4, which calls its models in a different way.

    Raises:
        ConfigError: DSPy is older.
    """
    version = getattr(sys.modules.get("dspy"), "__version__", None)
    if not isinstance(version, str):  # the import failed before it was set
        return
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    if numbers < _OLDEST:
        advice = "dspy-lambda needs DSPy 3.4 or newer: pip install 'dspy>=3.4'"
        raise ConfigError(f"DSPy {version} is installed, and {advice}.")


@contextmanager
def quick_stacks() -> Iterator[None]:
    """Replace `inspect.stack()` with a version that does not search for each frame's source.

    DSPy reads the whole stack for every optional package that is not installed (numpy, openai, ...), to name a line in
    an error that may never be raised. Measured with Python 3.13 and the runtime client, where the stack is deep: 0.9 s
    of a cold start of 1.4 s; 0.07 s in a bare interpreter.

    It depends on no DSPy name: Python itself shows no line if a source cannot be read.
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
