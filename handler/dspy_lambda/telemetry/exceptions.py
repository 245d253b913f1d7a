"""What is told of an exception: its kind and place always, its text only where a setting asks for that."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote, quote_plus

from dspy_lambda.errors import CallError, InvalidInput, with_detail
from dspy_lambda.introspection import UNKNOWN, plain_text
from dspy_lambda.telemetry.describe import describe

_TEXT_LENGTH = 10_000
_LEAST_KEY_LENGTH = 8
_MOST_KEYS = 1000  # a program may have one for each of its customers
# Of the LMs that programs made themselves, oldest first.
_met: dict[str, None] = {}


def meet(lm: Any) -> None:
    """Never show an LM's key in a text from now on: providers repeat one that they refuse."""
    options = getattr(lm, "kwargs", None)
    key = options.get("api_key") if type(options) is dict else None
    if type(key) is str and key not in _met and len(key) >= _LEAST_KEY_LENGTH:
        while len(_met) >= _MOST_KEYS:
            _met.pop(next(iter(_met)), None)
        _met[key] = None


class Exceptions:
    """Describes exceptions for the log and, where callers are developers, for the answer.

    The text may quote an input or an answer: `none` keeps it from both, `log` has it in the log alone, `answer` in
    both. Keys are taken out of it in any case.
    """

    def __init__(self, texts: str = "none") -> None:
        self._texts = texts
        self._keys: set[str] = set()

    @property
    def in_log(self) -> bool:
        return self._texts != "none"

    def hide(self, keys: Iterable[object]) -> None:
        """Never show these in a text."""
        self._keys.update(key for key in keys if isinstance(key, str) and len(key) >= _LEAST_KEY_LENGTH)

    def fields(self, error: BaseException) -> dict[str, Any]:
        """An exception's part of a log line."""
        return describe(error) | ({"exception": self.text(error)} if self.in_log else {})

    def reason(self, error: CallError | None) -> dict[str, Any]:
        """Why a call's inputs are invalid: its caller's mistake, which has a text and no traceback."""
        if not self.in_log or error is None or error.outcome != InvalidInput.outcome:
            return {}
        return {"exception": self.text(error.detail)}

    def explained(self, error: CallError, cause: BaseException) -> CallError:
        """The error as its caller gets it: with the cause's text and its last frames where that is asked for."""
        if self._texts != "answer":
            return error
        about = describe(cause)
        lines = [error.detail, f"{about['exception_name']}: {self.text(cause)}", *about["stack"]]
        return with_detail(error, "\n  ".join(lines))

    def text(self, value: object) -> str:
        """An exception's or a warning's text without keys."""
        keys = sorted({form for key in [*self._keys, *_met] for form in _forms(key)}, key=len, reverse=True)
        longest = len(keys[0]) if keys else 0
        try:
            # More than is shown, or the beginning of a key across the cut would be shown.
            text = plain_text(str(value), _TEXT_LENGTH + longest)
        except BaseException:  # its own code
            return UNKNOWN
        is_cut = len(text) >= _TEXT_LENGTH + longest
        for key in keys:
            text = text.replace(key, "(a key)")
        # What was replaced has moved the end of the text forward, perhaps with the beginning of a key.
        return text[: max(len(text) - longest, 0) if is_cut else None][:_TEXT_LENGTH]


def _forms(key: str) -> Iterator[str]:
    """A key as it is, and as `repr`, JSON and URLs write one of several lines or with special characters."""
    yield key
    yield repr(key)[1:-1]
    yield json.dumps(key)[1:-1]
    yield json.dumps(key, ensure_ascii=False)[1:-1]
    yield from (quote(key, errors="replace"), quote(key, safe="", errors="replace"))
    yield quote_plus(key, errors="replace")
