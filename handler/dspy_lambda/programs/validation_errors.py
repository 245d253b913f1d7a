"""What a caller reads about inputs that do not fit: where and why, and none of their values.

Imported for the first inputs that do not fit.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import cache
from typing import Any, get_args

from pydantic import ValidationError

_MOST_ERRORS = 100
_SUMMARY_LENGTH = 900  # a dead-letter queue's Reason has 1,000
# Kinds whose text is, or quotes, what a validator or the caller wrote.
_QUOTING = {"value_error", "assertion_error", "union_tag_invalid", "is_instance_of"}


def entries_of(error: ValidationError, names: Collection[str]) -> list[dict[str, Any]]:
    """An entry for each field that does not fit, 100 at most; never the value itself.

    Args:
        names: the names that a location may have: others are the caller's own.
    """
    # A wrong list of 300,000 items would be 300,000 entries: an answer that Lambda does not pass on.
    found = error.errors(include_url=False, include_input=False)[:_MOST_ERRORS]
    return [_entry(item, names) for item in found]


def summary(entries: list[dict[str, Any]]) -> str:
    """The first entries as one line, `field: why; ...`."""
    parts = [": ".join(filter(None, [".".join(map(str, item["loc"])), item["msg"]])) for item in entries]
    text = "; ".join(parts)
    return text if len(text) <= _SUMMARY_LENGTH else f"{text[:_SUMMARY_LENGTH]}..."


def _entry(item: Any, names: Collection[str]) -> dict[str, Any]:
    known = item["type"] in _core_errors() and item["type"] not in _QUOTING
    return {
        "loc": list(_declared(item["loc"], names)),
        "msg": item["msg"] if known else "Input is not valid for this field",
        "type": item["type"],
    }


def _declared(location: tuple[int | str, ...], names: Collection[str]) -> Iterator[int | str]:
    """The location up to the first part that the caller wrote: the keys of a dict are inputs too."""
    for part in location:
        if isinstance(part, str) and part not in names:
            return
        yield part


@cache
def _core_errors() -> set[str]:
    from pydantic_core.core_schema import ErrorType

    return set(get_args(ErrorType))


def property_names(schema: Any) -> Iterator[str]:
    """The names of all fields within a JSON Schema."""
    if isinstance(schema, dict):
        yield from schema.get("properties", {})
        for inner in schema.values():
            yield from property_names(inner)
    elif isinstance(schema, list):
        for inner in schema:
            yield from property_names(inner)
