"""What programs print, as log lines: one for each `print`, with the call that printed it.

A line that is a JSON object (EMF, another logger's) keeps its keys, so that CloudWatch still reads it.
"""

from __future__ import annotations

import io
import json
import sys
import threading
from collections.abc import Callable
from typing import Any, NoReturn

from dspy_lambda.call import CALL, Call

# One log event may have 1 MB; a text without a line end does not grow for ever.
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/cloudwatch_limits_cwl.html
_MOST_CHARACTERS = 100_000


class Printed(io.RawIOBase):
    """Stands under `sys.stdout` or `sys.stderr`. Nothing closes it.

    Args:
        descriptor: what child processes and native code write to directly: `fileno()`.
        text: called with what was printed, without its line end.
        json_object: called with a line that is a JSON object.
    """

    def __init__(
        self, descriptor: int, text: Callable[[str], None], json_object: Callable[[dict[str, Any]], None]
    ) -> None:
        self._descriptor = descriptor
        self._text = text
        self._json_object = json_object
        # `print` writes its arguments and its line end one by one; neither threads nor calls must mix theirs.
        self._begun: dict[tuple[int, Call | None], str] = {}

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def close(self) -> None:
        """A program that closes its standard output closes nobody else's."""

    def write(self, data: Any, /) -> int:
        text = bytes(data).decode(errors="replace")
        whose = threading.get_ident(), CALL.get()
        whole = self._begun.pop(whose, "") + text
        if whole.endswith("\n") or len(whole) > _MOST_CHARACTERS:
            self._pass_on(whole)
        else:
            self._begun[whose] = whole
        return len(data)

    def finish(self, call: Call | None = None) -> None:
        """Pass on what was begun and not ended with a line end: by one call, or by all and whatever else runs."""
        for whose in list(self._begun):
            if call is None or whose[1] is call:
                within = CALL.set(whose[1])  # its line is that call's, whoever finishes it
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
            for start in range(0, len(text), _MOST_CHARACTERS):
                self._text(text[start : start + _MOST_CHARACTERS])


def _objects(text: str) -> list[dict[str, Any]]:
    """The JSON objects that a text has one of on each line; none if any line is something else."""
    if not text.startswith("{"):
        return []
    try:
        # Not `splitlines`, which splits at U+2028, too: JSON has that in texts.
        found = [json.loads(line, parse_constant=_refuse) for line in text.split("\n")]
    except (ValueError, RecursionError):
        return []
    return found if all(type(value) is dict for value in found) else []


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def redirect(name: str, printed: Printed) -> None:
    """Let `sys.stdout` or `sys.stderr` write there."""
    setattr(sys, name, io.TextIOWrapper(printed, "utf-8", "backslashreplace", write_through=True))
