"""Handle hints that cannot be resolved, or that pydantic cannot read on this Python, without failing the program.

Imported only if a program has one.
"""

from __future__ import annotations

import inspect
import logging
import sys
import types
from collections.abc import Callable
from typing import Any, NotRequired, Required, Union, get_args, get_origin, get_type_hints, is_typeddict

from typing_extensions import TypedDict

_log = logging.getLogger(__name__)
# Before Python 3.12 pydantic rejects `typing.TypedDict`, which lacks information that pydantic needs.
_CONVERTS = sys.version_info < (3, 12)


def resolvable(entry: Callable[..., Any]) -> dict[str, Any]:
    """Return the hints of a program's `forward` or `aforward`, by parameter, and `return`.

    A hint that cannot be resolved (usually a name imported only for the type checker) becomes Any and is logged once.
    A return hint that cannot be resolved is left out, because nothing depends on it.
    """
    function = inspect.unwrap(entry)
    names = getattr(function, "__globals__", {})
    found: dict[str, Any] = {}
    for key, hint in getattr(function, "__annotations__", {}).items():
        holder = types.SimpleNamespace(__annotations__={key: hint})
        try:
            found |= get_type_hints(holder, globalns=names, include_extras=True)
        except Exception as error:
            if key != "return":
                unchecked(key, function, error)
                found[key] = Any
    return found


def unchecked(parameter: str, function: Callable[..., Any], error: Exception) -> None:
    """Log that a parameter's inputs are passed without validation."""
    place = getattr(function, "__qualname__", "forward")
    _log.warning(
        "%s: cannot read the hint of %s (%s); its inputs are not validated", place, parameter, type(error).__name__
    )


def readable(hint: Any, within: tuple[Any, ...] = ()) -> Any:
    """Convert each `typing.TypedDict` in a hint to one that pydantic accepts.

    Args:
        within: the TypedDicts that contain this hint; a recursive use of one of them becomes any dict.
    """
    if not _CONVERTS:
        return hint
    if is_typeddict(hint) and type(hint).__module__ == "typing":
        try:
            return dict[str, Any] if hint in within else _converted(hint, (*within, hint))
        except Exception:  # the hint of a field cannot be resolved
            return dict[str, Any]
    return rebuilt(hint, lambda inner: readable(inner, within))


def _converted(kind: Any, within: tuple[Any, ...]) -> Any:
    fields = {}
    for key, hint in get_type_hints(kind, include_extras=True).items():
        if get_origin(hint) not in (Required, NotRequired):
            hint = (Required if key in kind.__required_keys__ else NotRequired)[hint]
        fields[key] = readable(hint, within)
    make: Any = TypedDict
    made = make(kind.__name__, fields)
    made.__module__, made.__qualname__, made.__doc__ = kind.__module__, kind.__qualname__, kind.__doc__
    return made


def rebuilt(hint: Any, change: Callable[[Any], Any]) -> Any:
    """Rebuild a generic or union with changed arguments; return the hint itself if nothing changes."""
    old = get_args(hint)
    new = tuple(change(argument) for argument in old)
    if all(a is b for a, b in zip(old, new, strict=True)):
        return hint
    origin: Any = get_origin(hint)
    return Union[new] if origin in (Union, types.UnionType) else origin[new[0] if len(new) == 1 else new]  # noqa: UP007 - built at run time
