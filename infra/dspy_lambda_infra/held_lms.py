"""The LMs and hosted Embedders that a program holds in code, besides those of aliases."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import dspy

from dspy_lambda.introspection import is_a
from dspy_lambda_infra.project import ALIAS_MODEL, Function


def held_lms(function: Function) -> Iterator[tuple[str, Any]]:
    """Yield the LMs and hosted Embedders that a program holds, with their locations.

    They are attributes of the program, its class and its file, of the project's modules that its file uses, and of
    instances of the project's own classes there. LMs of aliases, which constructors get, are not the program's own.
    """
    if function.program is None:
        return
    modules = _modules_of(function)
    for place, value in _attributes(function, modules):
        for found in _held(value, {module.__name__ for module in modules}):
            if getattr(found, ALIAS_MODEL, None) != found.model:
                yield place, found


def _attributes(function: Function, modules: list[ModuleType]) -> Iterator[tuple[str, Any]]:
    """Yield the attributes of a program, its sub-modules, their classes and these modules, with their locations."""
    assert function.program is not None
    for path, module in function.program.instance.named_sub_modules():
        place = f"{function.name}{path.removeprefix('self')}"
        for owner in (module, *type(module).__mro__):
            yield from ((f"{place}.{name}", value) for name, value in vars(owner).items())
    for module in modules:
        yield from ((f"{module.__name__}.{name}", value) for name, value in vars(module).items())


def _modules_of(function: Function) -> list[ModuleType]:
    """Return a program's file and the project's modules that it imports or whose functions and classes it imports."""
    first = sys.modules[function.module]
    source = Path(str(first.__file__)).parents[2]
    found = {function.module: first}
    pending = [first]
    while pending:
        module = pending.pop()
        for name in map(_origin, list(vars(module).values())):
            # A package has its submodules as attributes, other programs' among them, whoever imported them.
            other = sys.modules.get(name or "")
            file = getattr(other, "__file__", None)
            is_part = hasattr(module, "__path__") and name is not None and name.startswith(f"{module.__name__}.modules")
            if other is not None and name not in found and not is_part and file and source in Path(file).parents:
                found[other.__name__] = other
                pending.append(other)
    return list(found.values())


def _origin(value: Any) -> str | None:
    """Return the name of the module that a value is or comes from. Asks only real classes: a proxy may run code."""
    if is_a(value, ModuleType):
        return str(value.__name__)
    if is_a(value, type, FunctionType):
        return str(value.__module__)
    return str(type(value).__module__)


def _held(value: Any, own: set[str], above: tuple[int, ...] = ()) -> Iterator[Any]:
    """Yield the LMs and hosted Embedders in an attribute's value, which may contain itself.

    Args:
        own: the names of the project's modules, whose instances are searched, too.
    """
    if id(value) in above:
        return
    items: Iterable[Any] = ()
    if is_a(value, dspy.BaseLM) or (is_a(value, dspy.Embedder) and isinstance(value.model, str)):
        yield value
    elif is_a(value, dict):
        items = value.values()
    elif is_a(value, list, tuple, set):
        items = value
    elif type(value).__module__ in own and not is_a(value, dspy.Module) and hasattr(value, "__dict__"):
        items = vars(value).values()
    for item in list(items):
        yield from _held(item, own, (*above, id(value)))
