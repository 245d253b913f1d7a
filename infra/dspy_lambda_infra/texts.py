"""Every text of a nested value, for who looks for keys in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def texts(value: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every text with its place; the names in mappings are texts of their own, and lists are no places."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*place, str(key)), str(key)
            yield from texts(inner, (*place, str(key)))
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner, place)
    else:
        yield place, str(value)
