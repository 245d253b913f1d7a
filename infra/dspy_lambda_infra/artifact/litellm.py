"""Finds the programs that would call their model through LiteLLM, with DSPy's own backend selection, offline."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import dspy

from dspy_lambda.dspy_patches import insides
from dspy_lambda.dspy_patches.own_models import OWN_LIMITS
from dspy_lambda.dspy_patches.patch import apply_patch
from dspy_lambda.models.embeddings import HOSTED_EMBEDDINGS, is_native
from dspy_lambda.models.registry import ProgramLM, build_models
from dspy_lambda.settings import Settings
from dspy_lambda_infra.held_lms import held_lms
from dspy_lambda_infra.project import Function, Project

# A gateway in this machine's environment variables would select LiteLLM here; Lambda's environment differs.
_GATEWAY = re.compile(r".+_(API_BASE|BASE_URL)")


def why_litellm(project: Project, function: Function) -> list[str]:
    """Return the reasons why a function needs LiteLLM; empty if it does not.

    Checks the program's configured models, and those that it holds in code. LMs that a program creates within a call
    are not visible here; DSPy's error message then names LiteLLM.
    """
    with without_gateways():
        lms = alias_lms(project, project.aliases(function))
        reasons = [f"models.registry.{alias}: {lm.model}" for alias, lm in lms.items() if uses_litellm(lm)]
        reasons += [f"{place}: {found.model}" for place, found in held_lms(function) if uses_litellm(found)]
    return list(dict.fromkeys(reasons))


def alias_lms(project: Project, aliases: Iterable[str]) -> dict[str, ProgramLM]:
    """Create the LMs of aliases as a function does, but without their keys.

    Raises:
        ConfigError: No call with an alias's options can succeed.
    """
    unset = {model.env: "unset" for model in project.config.models.registry.values() if model.env}
    return build_models(project.config, set(aliases), project.root, 60, Settings(variables=unset))


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


@contextmanager
def without_gateways() -> Iterator[None]:
    """Hide this machine's gateway variables, which would make DSPy select LiteLLM."""
    hidden = {name: os.environ.pop(name) for name in list(os.environ) if _GATEWAY.fullmatch(name)}
    try:
        yield
    finally:
        os.environ.update(hidden)
