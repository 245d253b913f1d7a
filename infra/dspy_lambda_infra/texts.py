"""Iterates over the texts in a nested value, to search them for keys."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def texts(value: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield every text with its location. Keys of mappings are yielded as texts too; list indexes are not recorded."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*place, str(key)), str(key)
            yield from texts(inner, (*place, str(key)))
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner, place)
    else:
        yield place, str(value)
