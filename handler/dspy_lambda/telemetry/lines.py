"""Serialize a log line to valid JSON, whatever a program put into it, so that Lambda reads its level.

https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-log-level.html: "If the "level" value field is
invalid or missing, Lambda will assign the log output the level INFO. ... If you don't supply a valid timestamp, Lambda
will assign the log the level INFO". Its levels for applications are TRACE, DEBUG, INFO, WARN, ERROR and FATAL.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from dspy_lambda.introspection import UNKNOWN

_LEVELS = 20
_BITS = 2000  # 603 digits; Python's limit for conversion to text can be set as low as 640
# Python's words for two of them.
_WORDS = {"WARNING": "WARN", "CRITICAL": "FATAL"}
# Lambda drops INFO lines at these levels.
_ABOVE_INFO = ("WARN", "ERROR", "FATAL")
_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


class Null:
    """Written as null. Powertools' formatter drops keys whose value is None, but a record has all of its fields."""


NULL = Null()


def line_to_json(line: dict[str, Any]) -> str:
    """Serialize a log line, with its level in Lambda's word."""
    level = line.get("level")
    return to_json(line | {"level": _WORDS[level]} if type(level) is str and level in _WORDS else line)


def readable(line: dict[str, Any]) -> dict[str, Any]:
    """Return a line of a program's own logger so that Lambda reads its level.

    Powertools' default timestamp, `2026-01-31 12:00:00,000+0000`, is not RFC 3339: its ERROR line would count as INFO.
    """
    level, stamp = line.get("level"), line.get("timestamp")
    if type(level) is not str:
        return line
    if type(stamp) is not str or not _RFC_3339.fullmatch(stamp):
        line = line | {"timestamp": now()}
    word = level.upper()
    return line | {"level": _WORDS.get(word, word)}


class MetricLevel:
    """The fields that keep Lambda from dropping metrics, which have no level and so count as INFO."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        level = variables.get("AWS_LAMBDA_LOG_LEVEL", "").upper()
        self._level = level if level in _ABOVE_INFO else None

    def fields(self) -> dict[str, str]:
        """Return level and timestamp if Lambda drops INFO lines, else nothing."""
        return {} if self._level is None else {"level": self._level, "timestamp": now()}


def now() -> str:
    """Return the time as RFC 3339, in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


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
