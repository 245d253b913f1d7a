"""An exception's kind and place, without a word of its text: that may quote an input, an answer or a key.

Works in an environment's last moments, on whatever a program raised: no import, no lock, no file is touched, and no
code of the exception's class runs. The `traceback` module reads source files and takes `linecache` along.
"""

from __future__ import annotations

from collections import deque
from types import TracebackType
from typing import Any

from dspy_lambda.introspection import UNKNOWN, class_name, plain_text, traceback_of

_FRAMES = 8


def describe(error: BaseException) -> dict[str, Any]:
    """The fields of an exception's log line: `exception_name`, and `stack`, its last 8 frames. Never raises."""
    try:
        return {"exception_name": class_name(type(error)), "stack": stack_of(traceback_of(error))}
    except BaseException:
        return {"exception_name": UNKNOWN, "stack": []}


def stack_of(traceback: TracebackType | None) -> list[str]:
    """The last 8 frames of a traceback, each as `file:line function`."""
    last: deque[TracebackType] = deque(maxlen=_FRAMES)
    while traceback is not None:
        last.append(traceback)
        traceback = traceback.tb_next
    return [_place(entry) for entry in last]


def _place(entry: TracebackType) -> str:
    code = entry.tb_frame.f_code
    return f"{plain_text(code.co_filename)}:{entry.tb_lineno} {plain_text(code.co_qualname)}"
