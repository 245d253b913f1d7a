"""The values of one call's masked fields, and their removal from texts in which fields are no longer visible."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from dspy_lambda.telemetry.exceptions import forms

MASKED = "***"
# A shorter value is part of too many words: replacing it would garble the text and tell where it was.
_MIN_LENGTH = 4
# A quotation may be cut: pydantic shows the first and the last 25 characters of a value. Shorter parts are words.
_PART_LENGTH = 8
_MAX_FORMS = 1000
_MAX_SECTION = 1000


class Hidden:
    """Values to remove from one call's texts.

    Attributes:
        unsafe: whether a value cannot be removed from a text: it is too short, or cannot be known.
        too_many: whether there are too many values to look for in each text.
        hook_failed: whether the log already says that `mask_with` failed for this call.
    """

    def __init__(self) -> None:
        self.unsafe = False
        self.too_many = False
        self.hook_failed = False
        self._texts: set[str] = set()
        self._forms: list[str] | None = None
        self._by_head: defaultdict[str, list[str]] = defaultdict(list)
        self._by_tail: defaultdict[str, list[str]] = defaultdict(list)

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

    def note(self, section: str) -> None:
        """Remove the value of a masked section, which is a whole text or a word, unless it is a word too short."""
        stripped = section.strip().strip("\"'")
        if _PART_LENGTH <= len(stripped) <= _MAX_SECTION:
            self.add(stripped)

    def remove_from(self, text: str) -> str:
        """Replace the values in a text, also those of which a cut left only the beginning or the end."""
        if not self._texts:
            return text
        if self._forms is None:
            self._forms = sorted({form for text in self._texts for form in _written(text)}, key=len, reverse=True)
            self._by_head.clear()
            self._by_tail.clear()
            for form in self._forms:
                if len(form) > _PART_LENGTH:
                    self._by_head[form[:_PART_LENGTH]].append(form)
                    self._by_tail[form[-_PART_LENGTH:]].append(form)
        for form in self._forms:
            if form in text:
                text = text.replace(form, MASKED)
        for head, forms_of_head in self._by_head.items():
            text = _remove_beginnings(text, head, forms_of_head)
        for tail, forms_of_tail in self._by_tail.items():
            text = _remove_ends(text, tail, forms_of_tail)
        return text


def _written(text: str) -> Iterator[str]:
    for form in {*forms(text)}:
        yield form
        if "\\" in form:  # JSON within JSON, as in a provider's error
            yield json.dumps(form, ensure_ascii=False)[1:-1]
    yield text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _remove_beginnings(text: str, head: str, values: list[str]) -> str:
    """Replace what begins like one of these values, as far as it has any of them in common."""
    at = text.find(head)
    while at >= 0:
        length = max(_common(text[at : at + len(value)], value) for value in values)
        text = text[:at] + MASKED + text[at + length :]
        at = text.find(head, at + len(MASKED))
    return text


def _remove_ends(text: str, tail: str, values: list[str]) -> str:
    """Replace what ends like one of these values, as far as it has any of them in common."""
    at = text.find(tail)
    while at >= 0:
        end = at + _PART_LENGTH
        lengths = [_common(text[max(0, end - len(value)) : end][::-1], value[::-1]) for value in values]
        start = end - max(lengths)
        text = text[:start] + MASKED + text[end:]
        at = text.find(tail, start + len(MASKED))
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
