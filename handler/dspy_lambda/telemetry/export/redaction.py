"""Remove keys from all texts of spans: names and attributes that programs and callers chose may hold some."""

from __future__ import annotations

from dspy_lambda.telemetry.exceptions import Exceptions

_REMEMBERED, _REMEMBERED_LENGTH = 1000, 100


class Redaction:
    """Removes keys from texts. Remembers short ones without any, as most texts are the same in every call."""

    def __init__(self, exceptions: Exceptions) -> None:
        self._exceptions = exceptions
        self._state = (0, 0)
        self._clean: set[str] = set()

    def __call__(self, text: str) -> str:
        """Return a text without keys."""
        if (state := self._exceptions.state) != self._state:
            self._state, self._clean = state, set()
        if text in self._clean:
            return text
        from dspy_lambda.key_shapes import mask_keys  # after the answer, not at init

        shown = mask_keys(self._exceptions.redacted(text), "***")
        if shown == text and len(text) <= _REMEMBERED_LENGTH and len(self._clean) < _REMEMBERED:
            self._clean.add(text)
        return shown
