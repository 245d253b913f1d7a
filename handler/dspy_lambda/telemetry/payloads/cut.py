"""Cut a value of JSON at a maximum size, with marks that say so."""

from __future__ import annotations

from collections.abc import Callable
from json.encoder import encode_basestring
from typing import Any

_NAME_BYTES = 200


class Cut:
    """Cuts one value.

    Args:
        text: returns a text in the form to write, cut at the given number of bytes.
        limit: the maximum size of all as JSON, in bytes; marks may exceed it by some 50 each.
    """

    def __init__(self, text: Callable[[str, int], str], limit: int) -> None:
        self._text = text
        self._left = limit

    def cut(self, value: Any) -> Any:
        """Return the value, with what exceeds the limit left out."""
        if isinstance(value, str):
            text = self._text(value, max(0, self._left))
            self._left -= json_size(text)
            return text
        if isinstance(value, dict):
            return self._dict(value)
        if isinstance(value, list):
            return self._list(value)
        self._left -= 5 if value is None or isinstance(value, bool) else len(repr(value))
        return value

    def _dict(self, value: dict[str, Any]) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        for position, (name, item) in enumerate(value.items()):
            if self._left <= 0:
                kept["..."] = f"(cut; {len(value) - position:,} more)"
                break
            shown = self._text(name, min(self._left, _NAME_BYTES))
            self._left -= json_size(shown) + 2
            kept[shown] = self.cut(item)
        return kept

    def _list(self, value: list[Any]) -> list[Any]:
        kept: list[Any] = []
        for position, item in enumerate(value):
            if self._left <= 0:
                kept.append(f"(cut; {len(value) - position:,} more)")
                break
            self._left -= 2
            kept.append(self.cut(item))
        return kept


def cut_text(text: str, limit: int, length: int | None = None) -> str:
    """Cut a text at a number of bytes, as JSON has it.

    Args:
        length: how many characters it had, if it was cut before.
    """
    longest = length
    if longest is None:
        if json_size(text) <= limit + 2:
            return text
        longest = len(text)
    text = text[:limit]
    while json_size(text) > limit + 2:
        # The JSON of a character has up to six bytes; this ends after a few rounds.
        text = text[: len(text) * limit // json_size(text)] if limit else ""
    return f"{text}... (cut; {longest:,} characters in all)"


def json_size(text: str) -> int:
    """Return the size of a text in JSON, in bytes."""
    written = encode_basestring(text)
    return len(written) if written.isascii() else len(written.encode("utf-8", "replace"))
