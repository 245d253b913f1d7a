"""What is told of an exception: its kind and place always, its text only where a setting asks for that."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dspy_lambda.errors import CallError, InvalidInput, with_detail
from dspy_lambda.introspection import UNKNOWN, plain_text
from dspy_lambda.settings import choice
from dspy_lambda.telemetry.describe import describe

TEXTS = "DSPY_LAMBDA_EXCEPTION_TEXTS"
_WORDS = ("none", "log", "answer")
_TEXT_LENGTH = 10_000
_LEAST_KEY_LENGTH = 8


class Exceptions:
    """Describes exceptions for the log and, where callers are developers, for the answer.

    The text may quote an input or an answer: `none` keeps it from both, `log` has it in the log alone, `answer` in
    both. Keys are taken out of it in any case.
    """

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._texts = choice(variables, TEXTS, _WORDS)
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
        try:
            text = plain_text(str(value), _TEXT_LENGTH)
        except BaseException:  # its own code
            return UNKNOWN
        for key in self._keys:
            text = text.replace(key, "(a key)")
        return text
