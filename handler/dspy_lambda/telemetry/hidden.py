"""The values of one call's masked fields, and their removal from texts in which fields are no longer visible."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from dspy_lambda.telemetry.exceptions import forms

MASKED = "***"
# A shorter value is part of too many words: replacing it would garble the text and tell where it was.
_MIN_LENGTH = 4
# A quotation may be cut: pydantic shows the first and the last 25 characters of a value. Shorter parts are words.
_PART_LENGTH = 8
_MAX_FORMS = 1000


class Hidden:
    """Values to remove from one call's texts.

    Attributes:
        unsafe: whether a value cannot be removed from a text: it is too short, or cannot be known.
        too_many: whether there are too many values to look for in each text.
    """

    def __init__(self) -> None:
        self.unsafe = False
        self.too_many = False
        self._texts: set[str] = set()
        self._forms: list[str] | None = None

    def add(self, text: str) -> None:
        """Remove a text from now on, in the notations of `repr`, JSON and URLs, and each of its lines."""
        stripped = text.strip()
        if not stripped:
            return
        if len(stripped) < _MIN_LENGTH:
            self.unsafe = True
        elif len(self._texts) >= _MAX_FORMS:
            self.unsafe = self.too_many = True
        else:
            self._texts |= {text, stripped}
            # DSPy's adapters indent the lines of a text within a list.
            lines = stripped.splitlines() if "\n" in stripped else ()
            self._texts.update(line.strip() for line in lines if len(line.strip()) >= _MIN_LENGTH)
            self._forms = None

    def remove_from(self, text: str) -> str:
        """Replace the values in a text, also those of which a cut left only the beginning or the end."""
        for form in self._all_forms():
            if form in text:
                text = text.replace(form, MASKED)
            if len(form) > _PART_LENGTH:
                text = remove_parts(text, form, MASKED)
        return text

    def _all_forms(self) -> list[str]:
        if self._forms is None:
            self._forms = sorted({form for text in self._texts for form in _written(text)}, key=len, reverse=True)
        return self._forms


def _written(text: str) -> Iterator[str]:
    for form in {*forms(text)}:
        yield form
        if "\\" in form:  # JSON within JSON, as in a provider's error
            yield json.dumps(form, ensure_ascii=False)[1:-1]
    yield text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def remove_parts(text: str, value: str, mark: str) -> str:
    """Replace what begins like a value, or ends like it, with at least 8 characters in common."""
    head, tail = value[:_PART_LENGTH], value[-_PART_LENGTH:]
    at = text.find(head)
    while at >= 0:
        text = text[:at] + mark + text[at + _common(text[at : at + len(value)], value) :]
        at = text.find(head, at + len(mark))
    at = text.find(tail)
    while at >= 0:
        end = at + _PART_LENGTH
        before = text[max(0, end - len(value)) : end]
        start = end - _common(before[::-1], value[::-1])
        text = text[:start] + mark + text[end:]
        at = text.find(tail, start + len(mark))
    return text


def _common(one: str, other: str) -> int:
    """Return the length of the longest common prefix, by bisection: a loop in Python is slow for long keys."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[:middle] == other[:middle] else (low, middle - 1)
    return low


def as_text(value: Any) -> str | None:
    """Return how a plain value other than a text is written; None for one that is no plain value."""
    if isinstance(value, int):
        return int.__repr__(value) if value.bit_length() < 2000 else None  # Python's limit for digits
    return float.__repr__(value) if isinstance(value, float) else None
