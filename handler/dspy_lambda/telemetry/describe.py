"""Describe an exception by kind and place, without its text, which may quote an input, an answer or a key.

Works in an environment's last moments and for any exception: it imports nothing, takes no lock, reads no file, and runs
no code of the exception's class. The `traceback` module would read source files and import `linecache`.
"""

from __future__ import annotations

from collections import deque
from types import TracebackType
from typing import Any

from dspy_lambda.introspection import UNKNOWN, class_name, plain_text, traceback_of

_FRAMES = 8


def describe(error: BaseException) -> dict[str, Any]:
    """Return the log fields of an exception: `exception_name`, and `stack`, its last 8 frames. Never raises."""
    try:
        return {"exception_name": class_name(type(error)), "stack": stack_of(traceback_of(error))}
    except BaseException:
        return {"exception_name": UNKNOWN, "stack": []}


def stack_of(traceback: TracebackType | None) -> list[str]:
    """Return the last 8 frames of a traceback, each as `file:line function`."""
    last: deque[TracebackType] = deque(maxlen=_FRAMES)
    while traceback is not None:
        last.append(traceback)
        traceback = traceback.tb_next
    return [_place(entry) for entry in last]


def _place(entry: TracebackType) -> str:
    code = entry.tb_frame.f_code
    return f"{plain_text(code.co_filename)}:{entry.tb_lineno} {plain_text(code.co_qualname)}"
