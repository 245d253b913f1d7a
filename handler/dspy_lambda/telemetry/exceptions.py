"""Describe exceptions: always by kind and place, and by their text only if a setting asks for it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import quote, quote_plus

from dspy_lambda.errors import CallError, InvalidInput, with_detail
from dspy_lambda.introspection import UNKNOWN, plain_text
from dspy_lambda.telemetry.describe import describe

Text = Callable[[object], str]
_TEXT_LENGTH = 10_000
_MIN_KEY_LENGTH = 8
_MAX_KEYS = 1000  # a program may have one for each of its customers
# Keys of LMs that programs created themselves, oldest first.
_seen_keys: dict[str, None] = {}
_version = 0  # counts their changes


def remember_key(lm: Any) -> None:
    """Redact an LM's key in all texts from now on: providers quote a key that they reject."""
    options = getattr(lm, "kwargs", None)
    remember(options.get("api_key") if type(options) is dict else None)


def remember(key: object) -> None:
    """Redact a key or a session token in all texts from now on."""
    global _version
    if type(key) is str and key not in _seen_keys and len(key) >= _MIN_KEY_LENGTH:
        while len(_seen_keys) >= _MAX_KEYS:
            _seen_keys.pop(next(iter(_seen_keys)), None)
        _seen_keys[key] = None
        _version += 1


class Exceptions:
    """Describes exceptions for the log and, if callers are developers, for the answer.

    The text may quote an input or an answer. `none` writes it nowhere, `log` only to the log, and `answer` to both;
    None leaves it to the program's `telemetry.payloads`. Keys are always redacted.
    """

    def __init__(self, texts: str | None = None) -> None:
        self._texts = texts
        self._keys: set[str] = set()
        self._forms: tuple[tuple[int, int], list[str]] = (0, -1), []

    @property
    def in_log(self) -> bool:
        return self._texts not in (None, "none")

    def redact(self, keys: Iterable[object]) -> None:
        """Redact these keys in all texts from now on."""
        self._keys.update(key for key in keys if isinstance(key, str) and len(key) >= _MIN_KEY_LENGTH)

    def fields(self, error: BaseException, shown: Text | None = None) -> dict[str, Any]:
        """Return the fields of a log line that describe an exception.

        Args:
            shown: returns its text by the rules of the program's payloads; None if they write no texts.
        """
        return describe(error) | self._exception(error, shown)

    def reason(self, error: CallError | None, shown: Text | None = None) -> dict[str, Any]:
        """Return the field that says why a call's inputs are invalid; such an error has a text but no traceback."""
        if error is None or error.outcome != InvalidInput.outcome:
            return {}
        return self._exception(error.detail, shown)

    def _exception(self, value: object, shown: Text | None) -> dict[str, str]:
        text = self.text if self.in_log else shown if self._texts is None else None
        return {} if text is None else {"exception": text(value)}

    def explained(self, error: CallError, cause: BaseException) -> CallError:
        """Return the error for the caller, with the cause's text and last frames if the setting asks for it."""
        if self._texts != "answer":
            return error
        about = describe(cause)
        lines = [error.detail, f"{about['exception_name']}: {self.text(cause)}", *about["stack"]]
        return with_detail(error, "\n  ".join(lines))

    def text(self, value: object) -> str:
        """Return the text of an exception or a warning, with keys redacted."""
        longest = self.longest_key
        # Longer than what is shown, so that a key across the cut is redacted as a whole.
        text = read_text(value, _TEXT_LENGTH + longest)
        is_cut = len(text) >= _TEXT_LENGTH + longest
        text = self.redacted(text)
        # Replacements have moved the end of the text forward, and it may end with the beginning of a key.
        return text[: max(len(text) - longest, 0) if is_cut else None][:_TEXT_LENGTH]

    def redacted(self, text: str) -> str:
        """Return a text without keys, in any notation."""
        for key in self._key_forms():
            if key in text:
                text = text.replace(key, "(a key)")
        return text

    @property
    def longest_key(self) -> int:
        """The length of the longest key in its longest notation."""
        found = self._key_forms()
        return len(found[0]) if found else 0

    @property
    def state(self) -> tuple[int, int]:
        """Changes with the keys."""
        return len(self._keys), _version

    def _key_forms(self) -> list[str]:
        state = self.state
        if self._forms[0] != state:
            found = {form for key in [*self._keys, *_seen_keys] for form in forms(key)}
            self._forms = state, sorted(found, key=len, reverse=True)
        return self._forms[1]


def read_text(value: object, length: int) -> str:
    """Return the text of any object, cut; `unknown` if its own code fails."""
    try:
        return plain_text(str(value), length)
    except BaseException:
        return UNKNOWN


def forms(key: str) -> Iterator[str]:
    """Yield a text as it is, and as `repr`, JSON and URLs write it."""
    yield key
    yield repr(key)[1:-1]
    yield json.dumps(key)[1:-1]
    yield json.dumps(key, ensure_ascii=False)[1:-1]
    yield from (quote(key, errors="replace"), quote(key, safe="", errors="replace"))
    yield quote_plus(key, errors="replace")
