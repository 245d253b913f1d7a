"""Recognize patterns that may need exponential time: Python cannot interrupt one, so it would hang the process."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Any

# A repeat up to this often within another one is harmless: (\d{1,3}\.){3}.
_FEW = 20
_BACKTRACKING = {"MAX_REPEAT", "MIN_REPEAT"}


def repeats_a_repeat(pattern: str) -> bool:
    """Whether a regular expression has a repeat within a repeat, such as (a+)+.

    That is the usual reason for exponential time; others, such as (a|a)*, are not found.
    """
    return _is_nested(importlib.import_module("re._parser").parse(pattern), False)


def _is_nested(parsed: Any, is_within: bool) -> bool:
    """Whether a parsed pattern, as of Python's own parser of 3.11 to 3.14, has an unbounded repeat within another."""
    for operation, argument in parsed:
        is_repeat = str(operation) in _BACKTRACKING and argument[1] > _FEW
        if (is_repeat and is_within) or any(_is_nested(part, is_within or is_repeat) for part in _parts(argument)):
            return True
    return False


def _parts(argument: Any) -> Iterable[Any]:
    """Return the patterns within an operation's argument."""
    if hasattr(argument, "data"):
        return [argument]
    return [part for item in argument for part in _parts(item)] if isinstance(argument, list | tuple) else []
