"""Describe validation errors to the caller: where and why, without any values.

Imported when the first inputs are invalid.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from functools import cache
from itertools import islice
from typing import Any, get_args

from pydantic import ValidationError

_MAX_ERRORS = 100
_SUMMARY_LENGTH = 900  # the `Reason` attribute in a dead-letter queue has at most 1,000
# Types whose message is, or quotes, text from a validator or the caller.
_QUOTING = {"value_error", "assertion_error", "union_tag_invalid", "is_instance_of"}


def entries_of(error: ValidationError, names: Collection[str]) -> list[dict[str, Any]]:
    """Return at most 100 validation errors, without the values themselves.

    Args:
        names: the names that a location may contain; any others come from the caller.
    """
    # A wrong list of 300,000 items would make 300,000 entries, which exceed Lambda's response limit.
    found = error.errors(include_url=False, include_input=False)[:_MAX_ERRORS]
    return [_entry(item, names) for item in found]


def refusals_of(errors: Iterable[dict[str, Any]], names: Collection[str]) -> list[dict[str, Any]]:
    """Return at most 100 of these errors, of `content`, with locations as in `entries_of`."""
    return [{**error, "loc": list(_declared(tuple(error["loc"]), names))} for error in islice(errors, _MAX_ERRORS)]


def summary(entries: list[dict[str, Any]]) -> str:
    """Format the first entries as one line, `field: why; ...`."""
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
    """Yield the location up to the first part that comes from the caller: dict keys are inputs, too."""
    for part in location:
        if isinstance(part, str) and part not in names:
            return
        yield part


@cache
def _core_errors() -> set[str]:
    from pydantic_core.core_schema import ErrorType

    return set(get_args(ErrorType))


def property_names(schema: Any) -> Iterator[str]:
    """Yield the names of all fields in a JSON Schema."""
    if isinstance(schema, dict):
        yield from schema.get("properties", {})
        for inner in schema.values():
            yield from property_names(inner)
    elif isinstance(schema, list):
        for inner in schema:
            yield from property_names(inner)
