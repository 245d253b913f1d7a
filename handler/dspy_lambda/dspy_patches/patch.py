"""Patches of DSPy: what each saves, which names it depends on, and why it was left out if these have changed."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

Function = Callable[..., Any]


class Name(NamedTuple):
    """A DSPy name that a patch depends on.

    Attributes:
        module, name: its module and its name there; dots lead into classes.
        parameters: the function's parameters, with `...` at the end for any more; None if they do not matter.
        is_async: whether the function is a coroutine function.
        attributes: attributes that the function's own code sets or reads.
        wrap: returns the replacement, given the original; None if the name is only used.
    """

    module: str
    name: str
    parameters: str | None = None
    is_async: bool = False
    attributes: str = ""
    wrap: Callable[[Any], Any] | None = None


@dataclass(frozen=True, eq=False)  # compared and hashed by identity, because each LM call looks one up
class Patch:
    """A change to DSPy, which is applied as a whole or left out.

    Attributes:
        name: its name in the warning.
        saves: what it is for, with a figure and where that was measured, if there is one.
        names: the names that it depends on.
        put: further work to apply the patch; if it raises, the patch is left out for that reason.
        is_for_speed: whether `DSPY_LAMBDA_FAST=false` leaves it out.
    """

    name: str
    saves: str
    names: tuple[Name, ...]
    put: Callable[[], None] | None = None
    is_for_speed: bool = False


class _Mismatch(Exception):
    """DSPy has changed a name that a patch depends on."""


@functools.cache
def apply_patch(patch: Patch) -> str | None:
    """Apply a patch, at most once per process.

    Returns:
        None, or the change in DSPy because of which the patch was left out.
    """
    try:
        found = [(name, *_find(name)) for name in patch.names]
        if patch.put is not None:
            patch.put()
    except Exception as error:
        return str(error) if isinstance(error, _Mismatch) else f"{type(error).__name__}: {error}"
    for name, owner, original in found:
        if name.wrap is not None:
            setattr(owner, name.name.rpartition(".")[2], _wrapped(name.wrap, original))
    return None


def apply_patches(patches: Iterable[Patch]) -> dict[str, str]:
    """Apply patches, and return those that were left out, each with the change in DSPy."""
    return {patch.name: reason for patch in patches if (reason := apply_patch(patch)) is not None}


def _wrapped(wrap: Callable[[Any], Any], original: Any) -> Any:
    replacement = wrap(original)
    return functools.wraps(original)(replacement) if inspect.isfunction(replacement) else replacement


def _find(name: Name) -> tuple[Any, Any]:
    """Return the owner of a name and its current value.

    Raises:
        _Mismatch: It is not what the patch expects.
    """
    where = f"{name.module}.{name.name}"
    holder, _, attribute = name.name.rpartition(".")
    try:
        owner: Any = importlib.import_module(name.module)
        for part in holder.split(".") if holder else ():
            owner = getattr(owner, part)
        original = getattr(owner, attribute)
    except (ImportError, AttributeError) as error:
        raise _Mismatch(f"{where}: {error}") from None
    if name.parameters is not None:
        _check_parameters(where, name, original)
    if missing := set(name.attributes.split()) - set(_names_in(original)):
        raise _Mismatch(f"{where} has no {', '.join(sorted(missing))}")
    return owner, original


def _check_parameters(where: str, name: Name, function: Any) -> None:
    try:
        parameters = " ".join(inspect.signature(function).parameters)
    except (TypeError, ValueError) as error:
        raise _Mismatch(f"{where}: {error}") from None
    expected = str(name.parameters)
    is_same = parameters.startswith(expected[:-3]) if expected.endswith("...") else parameters == expected
    if not is_same:
        raise _Mismatch(f"{where} takes ({parameters}), not ({expected})")
    if inspect.iscoroutinefunction(function) != name.is_async:
        raise _Mismatch(f"{where} changed between async and sync")


def _names_in(function: Any) -> tuple[str, ...]:
    names: tuple[str, ...] = getattr(getattr(inspect.unwrap(function), "__code__", None), "co_names", ())
    return names
