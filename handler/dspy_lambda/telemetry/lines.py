"""Serialize a log line to valid JSON, whatever a program put into it."""

from __future__ import annotations

import json
import math
from typing import Any

from dspy_lambda.introspection import UNKNOWN

_LEVELS = 20
_BITS = 2000  # 603 digits; Python's limit for conversion to text can be set as low as 640


class Null:
    """Written as null. Powertools' formatter drops keys whose value is None, but a record has all of its fields."""


NULL = Null()


def to_json(value: Any) -> str:
    """Convert a value to JSON; anything JSON cannot represent is converted to text. Never raises an Exception."""
    try:
        return _dump(value)
    except Exception:  # NaN, a cycle, a tuple as key, 5,000 digits, an object's own `__str__`
        return _dump(_plain(value, _LEVELS))


def _dump(value: Any) -> str:
    return json.dumps(value, default=_text, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _plain(value: Any, levels: int) -> Any:
    try:
        if value is NULL or value is None or isinstance(value, bool | str):
            return None if value is NULL else value
        if isinstance(value, int):
            return value if value.bit_length() < _BITS else f"a number of {value.bit_length()} bits"
        if isinstance(value, float):
            return value if math.isfinite(value) else str(value)
        if isinstance(value, dict | list | tuple) and not levels:
            return "..."  # also ends a cycle
        if isinstance(value, dict):
            return {key if type(key) is str else _text(key): _plain(item, levels - 1) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [_plain(item, levels - 1) for item in value]
    except Exception:
        return UNKNOWN
    return _text(value)


def _text(value: object) -> str | None:
    if value is NULL:
        return None
    try:
        return str(value)
    except Exception:  # from the object's own code
        return UNKNOWN
