"""Log what CPython would print to standard error as one JSON line, by kind and place.

For a thread that dies, a finalizer that raises or a warning, CPython prints text with a traceback or a source line,
which is not JSON and may quote an input, an answer or a key.
"""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Callable
from typing import Any

from dspy_lambda.introspection import UNKNOWN, class_name, is_a, plain_text
from dspy_lambda.telemetry import Log
from dspy_lambda.telemetry.describe import describe, stack_of

Text = Callable[[object], str]
_PLACES = 1000
_LAST_LINE = 2**31


class Hooks:
    """Python's hooks for unhandled exceptions and warnings. They never raise, and never log what logging itself causes.

    Args:
        log: called with level (`WARNING` or `ERROR`), message and fields.
        text: formats the text for the fields `exception` and `warning`; None to log no texts.
    """

    def __init__(self, log: Log, text: Text | None) -> None:
        self._log = log
        self._text = text
        self._busy = threading.local()
        self._places: dict[tuple[str, str, int] | None, object] = {}
        self._former = (threading.excepthook, sys.unraisablehook, warnings.showwarning)
        threading.excepthook = self._on_thread
        sys.unraisablehook = self._on_unraisable
        warnings.showwarning = self._on_warning

    def restore(self) -> None:
        """Restore the hooks that these replaced."""
        threading.excepthook, sys.unraisablehook, warnings.showwarning = self._former

    def _on_thread(self, dead: threading.ExceptHookArgs, /) -> None:
        # Like CPython, ignore SystemExit, by which a thread ends itself.
        if dead.exc_type is not SystemExit:
            self._write(lambda: ("ERROR", "unhandled exception in a thread", self._exception(dead)))

    def _on_unraisable(self, ignored: sys.UnraisableHookArgs, /) -> None:
        # Never touches `ignored.object`, which may be partly finalized.
        self._write(lambda: ("WARNING", "exception ignored by Python", self._exception(ignored)))

    def _on_warning(
        self, message: Any, category: Any, filename: Any, lineno: Any, file: Any = None, line: Any = None
    ) -> None:
        self._write(lambda: self._warning(message, category, filename, lineno))

    def _write(self, make: Callable[[], tuple[str, str, dict[str, Any]] | None]) -> None:
        try:
            if getattr(self._busy, "now", False):
                return
            self._busy.now = True
            try:
                if (line := make()) is not None:
                    self._log(*line)
            finally:
                self._busy.now = False
        except BaseException:
            return  # if a hook raised, CPython would print the exception's text

    def _exception(self, raised: threading.ExceptHookArgs | sys.UnraisableHookArgs) -> dict[str, Any]:
        error = raised.exc_value
        if error is None:
            return {"exception_name": class_name(raised.exc_type), "stack": stack_of(raised.exc_traceback)}
        return describe(error) | ({"exception": self._text(error)} if self._text else {})

    def _warning(
        self, message: Any, category: Any, filename: Any, lineno: Any
    ) -> tuple[str, str, dict[str, Any]] | None:
        """Return the line for a warning, or None if one from the same place was already logged."""
        name = class_name(category) if is_a(category, type) else UNKNOWN
        place = name, plain_text(filename), lineno if type(lineno) is int and 0 < lineno < _LAST_LINE else 0
        full = len(self._places) >= _PLACES and place not in self._places
        if not self._is_first(None if full else place):
            return None
        if full:
            return "WARNING", "further Python warnings are not logged", {"places": _PLACES}
        fields = {"warning_name": name, "place": f"{place[1]}:{place[2]}"}
        return "WARNING", "Python warning", fields | ({"warning": self._text(message)} if self._text else {})

    def _is_first(self, place: tuple[str, str, int] | None) -> bool:
        """Remember a place and return whether it was new; safe if two threads warn at once."""
        here = object()
        return self._places.setdefault(place, here) is here


_installed: list[Hooks] = []


def install(log: Log, text: Text | None = None) -> None:
    """Log what CPython would print; replaces a previously installed log.

    Args:
        log: called with level (`WARNING` or `ERROR`), message and fields, in any thread and even in a finalizer, so it
            must not wait for a lock that its own thread may hold.
        text: formats logged texts; None to log no texts.
    """
    restore()
    _installed.append(Hooks(log, text))


def restore() -> None:
    """Restore the hooks that `install` replaced."""
    while _installed:
        _installed.pop().restore()
