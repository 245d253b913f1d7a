"""Turn what programs print into log lines: one for each `print`, with the call that printed it.

A line that is a JSON object (EMF, or from another logger) keeps its keys, so that CloudWatch can still read it.
"""

from __future__ import annotations

import io
import json
import sys
import threading
from collections.abc import Callable
from typing import Any, NoReturn

from dspy_lambda.call import CALL, Call

# A log event may have 1 MB; this also bounds text without a newline.
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/cloudwatch_limits_cwl.html
_MAX_CHARACTERS = 100_000


class Printed(io.RawIOBase):
    """The raw stream under `sys.stdout` or `sys.stderr`. It cannot be closed.

    Args:
        descriptor: the result of `fileno()`, to which child processes and native code write directly.
        text: called with printed text, without its final newline.
        json_object: called with each line that is a JSON object.
    """

    def __init__(
        self, descriptor: int, text: Callable[[str], None], json_object: Callable[[dict[str, Any]], None]
    ) -> None:
        self._descriptor = descriptor
        self._text = text
        self._json_object = json_object
        # `print` writes its arguments and newline separately; keep those of threads and calls apart.
        self._begun: dict[tuple[int, Call | None], str] = {}

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def close(self) -> None:
        """Do nothing: a program that closes standard output must not close it for others."""

    def write(self, data: Any, /) -> int:
        text = bytes(data).decode(errors="replace")
        whose = threading.get_ident(), CALL.get()
        whole = self._begun.pop(whose, "") + text
        if whole.endswith("\n") or len(whole) > _MAX_CHARACTERS:
            self._pass_on(whole)
        else:
            self._begun[whose] = whole
        return len(data)

    def finish(self, call: Call | None = None) -> None:
        """Pass on text that has no final newline yet, from one call or (None) from everything."""
        for whose in list(self._begun):
            if call is None or whose[1] is call:
                within = CALL.set(whose[1])  # the line belongs to the call that printed it
                try:
                    self._pass_on(self._begun.pop(whose, ""))
                finally:
                    CALL.reset(within)

    def _pass_on(self, text: str) -> None:
        text = text.rstrip("\n")
        if objects := _objects(text):
            for found in objects:
                self._json_object(found)
        elif text.strip():
            for start in range(0, len(text), _MAX_CHARACTERS):
                self._text(text[start : start + _MAX_CHARACTERS])


def _objects(text: str) -> list[dict[str, Any]]:
    """Return the JSON objects of a text with one on each line; empty if any line is something else."""
    if not text.startswith("{"):
        return []
    try:
        # Not `splitlines`, which also splits at U+2028, which JSON strings may contain.
        found = [json.loads(line, parse_constant=_refuse) for line in text.split("\n")]
    except (ValueError, RecursionError):
        return []
    return found if all(type(value) is dict for value in found) else []


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def redirect(name: str, printed: Printed) -> None:
    """Make `sys.stdout` or `sys.stderr` write to `printed`."""
    setattr(sys, name, io.TextIOWrapper(printed, "utf-8", "backslashreplace", write_through=True))
