"""Finds the programs that would call their model through LiteLLM, with DSPy's own backend selection, offline."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import dspy

from dspy_lambda.dspy_patches import insides
from dspy_lambda.dspy_patches.own_models import OWN_LIMITS
from dspy_lambda.dspy_patches.patch import apply_patch
from dspy_lambda.introspection import is_a
from dspy_lambda.models.embeddings import HOSTED_EMBEDDINGS, is_native
from dspy_lambda.models.registry import build_models
from dspy_lambda.settings import Settings
from dspy_lambda_infra.project import ALIAS_MODEL, Function, Project

# A gateway in this machine's environment variables would select LiteLLM here; Lambda's environment differs.
_GATEWAY = re.compile(r".+_(API_BASE|BASE_URL)")


def why_litellm(project: Project, function: Function) -> list[str]:
    """Return the reasons why a function needs LiteLLM; empty if it does not.

    Checks the program's configured models, and every LM and hosted Embedder that the instantiated program, its class or
    its file holds. LMs that a program creates within a call are not visible here; DSPy's error message then names
    LiteLLM.
    """
    settings = Settings(
        variables={model.env: "unset" for model in project.config.models.registry.values() if model.env}
    )
    with without_gateways():
        lms = build_models(project.config, set(project.aliases(function)), project.root, 60, settings)
        reasons = [f"models.registry.{alias}: {lm.model}" for alias, lm in lms.items() if uses_litellm(lm)]
        reasons += [f"{place}: {found.model}" for place, found in held_lms(function) if uses_litellm(found)]
    return list(dict.fromkeys(reasons))


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


def uses_litellm(model: dspy.BaseLM | dspy.Embedder) -> bool:
    """Whether a plain chat call of an LM, or a hosted Embedder's request, would go through LiteLLM in a function."""
    if isinstance(model, dspy.Embedder):
        return apply_patch(HOSTED_EMBEDDINGS) is not None or not is_native(model.model, model.default_kwargs)
    apply_patch(OWN_LIMITS)
    if not isinstance(model, dspy.LM):
        return False
    try:
        return insides.uses_litellm(model)
    except (ValueError, TypeError):  # no call of this LM can succeed either way
        return False


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


@contextmanager
def without_gateways() -> Iterator[None]:
    """Hide this machine's gateway variables, which would make DSPy select LiteLLM."""
    hidden = {name: os.environ.pop(name) for name in list(os.environ) if _GATEWAY.fullmatch(name)}
    try:
        yield
    finally:
        os.environ.update(hidden)
