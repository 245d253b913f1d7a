"""Finds the programs that would call their model through LiteLLM, with DSPy's own backend selection, offline."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dspy

from dspy_lambda.dspy_patches import insides
from dspy_lambda.models.registry import build_models
from dspy_lambda.settings import Settings
from dspy_lambda_infra.project import Function, Project

# A gateway in this machine's environment variables would select LiteLLM here; Lambda's environment differs.
_GATEWAY = re.compile(r".+_(API_BASE|BASE_URL)")


def why_litellm(project: Project, function: Function) -> list[str]:
    """Return the reasons why a function needs LiteLLM; empty if it does not.

    Checks the program's configured model, and every LM and hosted Embedder that the instantiated program, its class or
    its file holds. LMs that a program creates within a call are not visible here; DSPy's error message then names
    LiteLLM.
    """
    alias = project.config.model_alias(function.name)
    settings = Settings(
        variables={model.env: "unset" for model in project.config.models.registry.values() if model.env}
    )
    with without_gateways():
        lms = build_models(project.config, {alias}, project.root, 60, settings)
        reasons = [f"models.registry.{alias}: {lm.model}" for lm in lms.values() if uses_litellm(lm)]
        reasons += [
            f"{place}: {found.model}"
            for place, found in held_lms(function)
            if isinstance(found, dspy.Embedder) or uses_litellm(found)
        ]
    return list(dict.fromkeys(reasons))


def held_lms(function: Function) -> Iterator[tuple[str, Any]]:
    """Yield the LMs and hosted Embedders that a program, its class or its file holds, with their locations."""
    for place, value in _attributes(function):
        yield from ((place, found) for found in _held(value))


def _attributes(function: Function) -> Iterator[tuple[str, Any]]:
    """Yield the attributes of a program, its sub-modules, their classes and its file, with their locations."""
    if function.program is None:
        return
    for path, module in function.program.instance.named_sub_modules():
        place = f"{function.name}{path.removeprefix('self')}"
        for owner in (module, *type(module).__mro__):
            yield from ((f"{place}.{name}", value) for name, value in vars(owner).items())
    yield from ((f"{function.module}.{name}", value) for name, value in vars(sys.modules[function.module]).items())


def uses_litellm(lm: dspy.BaseLM) -> bool:
    """Whether a plain chat call of this LM would go through LiteLLM."""
    if not isinstance(lm, dspy.LM):
        return False
    try:
        return insides.uses_litellm(lm)
    except (ValueError, TypeError):  # no call of this LM can succeed either way
        return False


def _held(value: Any, above: tuple[int, ...] = ()) -> Iterator[Any]:
    """Yield the LMs and hosted Embedders in an attribute's value, which may contain itself."""
    if isinstance(value, dspy.BaseLM) or (isinstance(value, dspy.Embedder) and isinstance(value.model, str)):
        yield value
    elif isinstance(value, dict | list | tuple | set) and id(value) not in above:
        for item in value.values() if isinstance(value, dict) else value:
            yield from _held(item, (*above, id(value)))


@contextmanager
def without_gateways() -> Iterator[None]:
    """Hide this machine's gateways from DSPy's backend selection."""
    hidden = {name: os.environ.pop(name) for name in list(os.environ) if _GATEWAY.fullmatch(name)}
    try:
        yield
    finally:
        os.environ.update(hidden)
