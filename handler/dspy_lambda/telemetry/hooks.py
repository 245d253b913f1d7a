"""What CPython would print to standard error becomes one JSON line, by kind and place.

A thread that dies, a finalizer that raises and a warning each end as text there, with a traceback or a source line:
that is no JSON, and the text may quote an input, an answer or a key.
"""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Callable
from typing import Any

from dspy_lambda.introspection import UNKNOWN, class_name, is_a, plain_text
from dspy_lambda.telemetry.describe import describe, stack_of

Log = Callable[[str, str, dict[str, Any]], None]
Text = Callable[[object], str]
_PLACES = 1000
_LAST_LINE = 2**31


class Hooks:
    """Python's hooks for what no code handles. None of them raises, and what the log itself causes is not logged.

    Args:
        log: called with level (`WARNING` or `ERROR`), message and fields.
        text: what is logged of a text, as `exception` and `warning`; None where no texts are.
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
        """Put back the hooks that these replaced."""
        threading.excepthook, sys.unraisablehook, warnings.showwarning = self._former

    def _on_thread(self, dead: threading.ExceptHookArgs, /) -> None:
        # As CPython does: this is how a thread ends itself.
        if dead.exc_type is not SystemExit:
            self._write(lambda: ("ERROR", "unhandled exception in a thread", self._exception(dead)))

    def _on_unraisable(self, ignored: sys.UnraisableHookArgs, /) -> None:
        # Never touches `ignored.object`, which may be in the middle of its finalization.
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
            return  # whatever a hook raises, CPython prints, with its text

    def _exception(self, raised: threading.ExceptHookArgs | sys.UnraisableHookArgs) -> dict[str, Any]:
        error = raised.exc_value
        if error is None:
            return {"exception_name": class_name(raised.exc_type), "stack": stack_of(raised.exc_traceback)}
        return describe(error) | ({"exception": self._text(error)} if self._text else {})

    def _warning(
        self, message: Any, category: Any, filename: Any, lineno: Any
    ) -> tuple[str, str, dict[str, Any]] | None:
        """The line for a warning; None for one from a place that was logged before."""
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
        """Remember a place; whether it was new. Of two threads that warn at once, one is first."""
        here = object()
        return self._places.setdefault(place, here) is here


_installed: list[Hooks] = []


def install(log: Log, text: Text | None = None) -> None:
    """Log what CPython would print; replaces an earlier log.

    Args:
        log: called with level (`WARNING` or `ERROR`), message and fields, in whatever thread it happens, within a
            finalizer too: it must not wait for a lock that its own thread may hold.
        text: what is logged of a text; None: texts are not logged.
    """
    restore()
    _installed.append(Hooks(log, text))


def restore() -> None:
    """Put back the hooks that `install` replaced."""
    while _installed:
        _installed.pop().restore()
