"""A function's models: those of its aliases, and those of the LMs and Embedders that its program holds itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import dspy

from dspy_lambda.config.schema import ModelSettings
from dspy_lambda.dspy_patches.insides import has_price, key_variable
from dspy_lambda.errors import ConfigError
from dspy_lambda.models.bedrock.doors import Route, route
from dspy_lambda.models.bedrock.patches import region_of
from dspy_lambda.models.bedrock.regions import region_in
from dspy_lambda_infra.artifact.litellm import alias_lms, uses_litellm, without_gateways
from dspy_lambda_infra.held_lms import held_lms
from dspy_lambda_infra.project import Function, Project


@dataclass(frozen=True)
class Model:
    """A model and the place where the project names it.

    Attributes:
        place: `models.registry.ALIAS`, or the attribute that holds the LM.
        name: DSPy's model string.
        lm: an LM of it, or the Embedder that the program holds; None if no call of it can succeed.
        settings: its alias's settings; None if the program holds it.
    """

    place: str
    name: str
    lm: dspy.BaseLM | dspy.Embedder | None
    settings: ModelSettings | None = None

    @cached_property
    def route(self) -> Route | None:
        """How Bedrock serves it, or None if it is not on Bedrock."""
        return route(self.name, guarded=self.guardrail is not None)

    @property
    def reason(self) -> str:
        """Why it is served by its door; empty if it is not on Bedrock."""
        if self.settings is not None and self.settings.door is not None:
            return "named by door: in the config"
        guarded = self.guardrail is not None
        found = route(self.settings.model if self.settings else self.name, guarded=guarded)
        return found.reason if found is not None else ""

    @property
    def region(self) -> str | None:
        """Where Bedrock is called, as its alias, its LM or their address says; None for the function's own Region."""
        if self.route is None:
            return None
        if self.settings is not None:
            return self.settings.region or region_in(self.settings.api_base or "")
        if isinstance(self.lm, dspy.Embedder):
            region: str | None = self.lm.default_kwargs.get("aws_region_name")
            return region
        return region_of(self.lm)

    @property
    def guardrail(self) -> str | None:
        """The id or ARN of the guardrail that its calls use."""
        if self.settings is not None:
            return self.settings.guardrail.id if self.settings.guardrail is not None else None
        found = self._held_options.get("guardrailConfig")
        identifier: str | None = found.get("guardrailIdentifier") if isinstance(found, dict) else None
        return identifier

    @property
    def _held_options(self) -> dict[str, Any]:
        """The options of an LM that the program holds."""
        return getattr(self.lm, "kwargs", None) or {}

    @property
    def key(self) -> str | None:
        """The variable with its key; None if it needs none."""
        if self.settings is not None:
            return self.settings.env
        return key_variable(self.lm) if isinstance(self.lm, dspy.LM) else None

    @property
    def is_priced(self) -> bool:
        """Whether the cost of its calls is known."""
        if self.settings is not None and self.settings.price is not None:
            return True
        return not isinstance(self.lm, dspy.LM) or has_price(self.lm, self.region)

    @property
    def needs_litellm(self) -> bool:
        """Whether a plain call of it would go through LiteLLM."""
        with without_gateways():
            return self.lm is not None and uses_litellm(self.lm)


def function_models(project: Project, function: Function) -> list[Model]:
    """Return a function's models, in order of first use: its aliases, and what its program holds itself."""
    aliases = [_of_alias(project, alias) for alias in project.aliases(function)]
    return [*aliases, *_held(function)]


def unpriced(project: Project, function: Function) -> list[str]:
    """Return the places of a function's models whose calls have an unknown cost."""
    return [model.place for model in function_models(project, function) if not model.is_priced]


def _of_alias(project: Project, alias: str) -> Model:
    settings = project.config.models.registry[alias]
    try:
        lm = alias_lms(project, [alias])[alias]
    except ConfigError:
        lm = None
    return Model(f"models.registry.{alias}", settings.served_as, lm, settings)


def _held(function: Function) -> Iterator[Model]:
    seen = set()
    for place, found in held_lms(function):
        model = Model(place, str(found.model), found)
        key = (place, model.name, model.region, model.guardrail)
        if key not in seen:
            seen.add(key)
            yield model
