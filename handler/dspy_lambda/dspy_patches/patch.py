"""A patch of DSPy: what it saves, what it stands on, and why it was left out where that differs."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

Function = Callable[..., Any]


class Name(NamedTuple):
    """A name of DSPy's that a patch stands on.

    Attributes:
        module, name: where it is; dots lead into classes.
        parameters: those of the function that it is, `...` for any more at the end; None where they do not matter.
        is_async: whether that function is a coroutine function.
        attributes: what the function's own code sets or reads of objects.
        wrap: given what is there, returns what takes its place; None where the name is only used.
    """

    module: str
    name: str
    parameters: str | None = None
    is_async: bool = False
    attributes: str = ""
    wrap: Callable[[Any], Any] | None = None


@dataclass(frozen=True, eq=False)  # compared and hashed by identity: each LM call asks whether one is in place
class Patch:
    """One thing that DSPy does not offer. It is put in place as a whole, or left out.

    Attributes:
        name: what the warning calls it.
        saves: what for, with a figure and where that was measured, if there is one.
        names: what it stands on.
        put: what else is done to put it in place; what it raises is the reason to leave the patch out.
        is_for_speed: whether `DSPY_LAMBDA_FAST=false` leaves it out.
    """

    name: str
    saves: str
    names: tuple[Name, ...]
    put: Callable[[], None] | None = None
    is_for_speed: bool = False


class _Differs(Exception):
    """DSPy has changed what a patch stands on."""


@functools.cache
def put_in_place(patch: Patch) -> str | None:
    """Put a patch in place, once in the life of the process.

    Returns:
        None; or what DSPy has changed, so that the patch was left out and DSPy is as it comes.
    """
    try:
        found = [(name, *_find(name)) for name in patch.names]
        if patch.put is not None:
            patch.put()
    except Exception as error:
        return str(error) if isinstance(error, _Differs) else f"{type(error).__name__}: {error}"
    for name, owner, original in found:
        if name.wrap is not None:
            setattr(owner, name.name.rpartition(".")[2], _wrapped(name.wrap, original))
    return None


def put_all_in_place(patches: Iterable[Patch]) -> dict[str, str]:
    """Put patches in place: those left out, each with what DSPy has changed."""
    return {patch.name: reason for patch in patches if (reason := put_in_place(patch)) is not None}


def _wrapped(wrap: Callable[[Any], Any], original: Any) -> Any:
    replacement = wrap(original)
    return functools.wraps(original)(replacement) if inspect.isfunction(replacement) else replacement


def _find(name: Name) -> tuple[Any, Any]:
    """Where a name is, and what it is now.

    Raises:
        _Differs: it is not what the patch was made for.
    """
    where = f"{name.module}.{name.name}"
    holder, _, attribute = name.name.rpartition(".")
    try:
        owner: Any = importlib.import_module(name.module)
        for part in holder.split(".") if holder else ():
            owner = getattr(owner, part)
        original = getattr(owner, attribute)
    except (ImportError, AttributeError) as error:
        raise _Differs(f"{where}: {error}") from None
    if name.parameters is not None:
        _check_parameters(where, name, original)
    if missing := set(name.attributes.split()) - set(_names_in(original)):
        raise _Differs(f"{where} has no {', '.join(sorted(missing))}")
    return owner, original


def _check_parameters(where: str, name: Name, function: Any) -> None:
    try:
        parameters = " ".join(inspect.signature(function).parameters)
    except (TypeError, ValueError) as error:
        raise _Differs(f"{where}: {error}") from None
    expected = str(name.parameters)
    is_same = parameters.startswith(expected[:-3]) if expected.endswith("...") else parameters == expected
    if not is_same:
        raise _Differs(f"{where} takes ({parameters}), not ({expected})")
    if inspect.iscoroutinefunction(function) != name.is_async:
        raise _Differs(f"{where} changed between async and sync")


def _names_in(function: Any) -> tuple[str, ...]:
    names: tuple[str, ...] = getattr(getattr(inspect.unwrap(function), "__code__", None), "co_names", ())
    return names
