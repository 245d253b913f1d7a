"""Which programs would call their model through LiteLLM, told by DSPy's own backend selection, offline."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dspy
from dspy.clients.engines.litellm_engine import LiteLLMEngine
from dspy.clients.execution import _engine, prepare

from handler.models import build_models
from infra.project import Function, Project

# A gateway in this machine's environment sends calls to LiteLLM here; Lambda's environment is another.
_GATEWAY = re.compile(r".+_(API_BASE|BASE_URL)")


def why_litellm(project: Project, function: Function) -> list[str]:
    """Why a function needs LiteLLM, in words; empty if it does not.

    Looked at: the model that the config gives the program, and every LM and hosted Embedder that the instantiated
    program holds. What a program makes within a call cannot be seen from here; DSPy's message then names LiteLLM.
    """
    alias = project.config.model_alias(function.name)
    variables = {model.env: "unset" for model in project.config.models.registry.values() if model.env}
    with _without_gateways():
        lms = build_models(project.config, {alias}, project.root, 60, variables)
        reasons = [f"models.registry.{alias}: {lm.model}" for lm in lms.values() if uses_litellm(lm)]
        if function.program is not None:
            for module_name, module in function.program.instance.named_sub_modules():
                for name, value in vars(module).items():
                    reasons += [
                        f"{function.name}.{module_name}.{name}: {found.model}".replace(".self.", ".")
                        for found in _held(value)
                        if isinstance(found, dspy.Embedder) or uses_litellm(found)
                    ]
    return list(dict.fromkeys(reasons))


def uses_litellm(lm: dspy.BaseLM) -> bool:
    """Whether a plain chat call of this LM would go through LiteLLM."""
    if not isinstance(lm, dspy.LM):
        return False
    call = prepare(lm, None, [{"role": "user", "content": "?"}], {})
    engine, _, _ = _engine(lm, call, False)
    return isinstance(engine, LiteLLMEngine)


def _held(value: Any) -> Iterator[Any]:
    """The LMs and hosted embedders in an attribute's value."""
    if isinstance(value, dspy.BaseLM) or (isinstance(value, dspy.Embedder) and isinstance(value.model, str)):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _held(item)
    elif isinstance(value, list | tuple | set):
        for item in value:
            yield from _held(item)


@contextmanager
def _without_gateways() -> Iterator[None]:
    hidden = {name: os.environ.pop(name) for name in list(os.environ) if _GATEWAY.fullmatch(name)}
    try:
        yield
    finally:
        os.environ.update(hidden)
