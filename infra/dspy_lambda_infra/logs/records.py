"""The records of program calls, read from log lines."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple

CALL = "program call"
LATE = "late model call"
OUTSIDE = "model call outside any program call"
MESSAGES = (CALL, LATE, OUTSIDE)
SUCCESS = "success"
_MARK = b"call"
_MAX_TEXT = 200
# No record has more, and sums of it stay exact.
_MAX_COUNT = 2**53
_KEYS = ("function_request_id", "message_id", "correlation_id", "trace_id", "xray_trace_id")


class Record(NamedTuple):  # a frozen dataclass takes 2 us more for each line
    """A line's record: a call, or (`duration_ms` is None) only the tokens and cost of an answer outside of calls.

    Attributes:
        at: seconds since the epoch; NaN if the line has no time.
        outcome: empty if it is not a call.
        cost_usd: None if a price is unknown.
        ids: the request id first, which is empty if there is none.
        why: the exception's class and text, as far as the line has them.
    """

    at: float
    program: str
    model: str
    outcome: str
    duration_ms: float | None
    input_tokens: int
    output_tokens: int
    cost_usd: float | None
    lm_calls: int
    cache_hits: int
    cold_start: bool
    ids: tuple[str, ...]
    why: str

    @property
    def request_id(self) -> str:
        """Lambda's request id; empty if there is none."""
        return self.ids[0]


class Unreadable(ValueError):
    """A line that begins as a record but is not one: cut, or with values of other types."""


def entry(line: bytes) -> dict[str, Any] | None:
    """Return the JSON object in a line, after a prefix as `aws logs tail` writes it; None if there is none."""
    start = line.find(b'{"')
    if start < 0:
        return None
    try:
        found = json.loads(line[start:])
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def read(line: bytes) -> Record | None:
    """Return a line's record; None for other lines.

    Raises:
        Unreadable: the line is a record that is cut, or has values of other types.
    """
    if _MARK not in line:  # most other lines, without parsing them
        return None
    found = entry(line)
    if found is None:
        if any(f'"{message}"'.encode() in line for message in MESSAGES):
            raise Unreadable
        return None
    return record(found)


def record(found: dict[str, Any]) -> Record | None:
    """Return an entry's record; None for other entries.

    Raises:
        Unreadable: values of other types.
    """
    message = found.get("message")
    if message not in MESSAGES:
        return None
    is_call = message == CALL
    try:
        cost = found.get("cost_usd")
        return Record(
            at=_time(found.get("timestamp")),
            program=_text(found.get("program")) or "unknown",
            model=_text(found.get("model")) or "-",
            outcome=_text(found["outcome"]) if is_call else "",
            duration_ms=_amount(found["duration_ms"]) if is_call else None,
            input_tokens=_count(found.get("input_tokens", 0)),
            output_tokens=_count(found.get("output_tokens", 0)),
            # An abandoned answer has no cost, known or unknown.
            cost_usd=_amount(cost) if cost is not None else None if "cost_usd" in found else 0.0,
            lm_calls=_count(found.get("lm_calls", 0)),
            cache_hits=_count(found.get("cache_hits", 0)),
            cold_start=found.get("cold_start") is True,
            ids=tuple(_text(found.get(key)) for key in _KEYS),
            why=": ".join(filter(None, (_text(found.get("exception_name")), _text(found.get("exception"))))),
        )
    except (KeyError, TypeError, ValueError, OverflowError):
        raise Unreadable from None


def payloads(found: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield name and value of what a record has of inputs and outputs, or of their sizes."""
    for name in ("inputs", "outputs"):
        if name in found:
            yield name, found[name]
        elif f"{name}_bytes" in found:
            yield name, f"{found[f'{name}_bytes']} bytes"


def call_key(found: dict[str, Any]) -> tuple[str, str]:
    """Return the request id and message id (may be empty) of the call that an entry belongs to."""
    return _text(found.get("function_request_id")), _text(found.get("message_id"))


def _text(value: Any) -> str:
    return value[:_MAX_TEXT] if type(value) is str else "" if value is None else str(value)[:_MAX_TEXT]


def _amount(value: Any) -> float:
    if type(value) not in (int, float):  # a bool is an int, but no amount
        raise TypeError(value)
    if not 0 <= value < math.inf:
        raise ValueError(value)
    return float(value)


def _count(value: Any) -> int:
    if type(value) is not int:
        raise TypeError(value)
    if not 0 <= value <= _MAX_COUNT:
        raise ValueError(value)
    return value


def _time(value: Any) -> float:
    if not isinstance(value, str):
        return math.nan
    try:
        return datetime.fromisoformat(value).timestamp()
    except (ValueError, OverflowError):
        return math.nan
