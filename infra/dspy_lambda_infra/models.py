"""A function's models: those of its aliases, and those of the LMs and Embedders that its program holds itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import dspy
from dspy.utils.exceptions import LMError

from dspy_lambda.config.schema import ModelSettings
from dspy_lambda.dspy_patches.insides import has_price
from dspy_lambda.models.bedrock.doors import Route, route
from dspy_lambda.models.bedrock.patches import region_of
from dspy_lambda_infra.artifact.litellm import held_lms, uses_litellm, without_gateways
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
        return route(self.name)

    @property
    def reason(self) -> str:
        """Why it is served by its door; empty if it is not on Bedrock."""
        if self.settings is not None and self.settings.door is not None:
            return "named by door: in the config"
        guarded = self.settings is not None and self.settings.guardrail is not None
        found = route(self.settings.model if self.settings else self.name, guarded=guarded)
        return found.reason if found is not None else ""

    @property
    def region(self) -> str | None:
        """Its alias's Region, or that of the LM or Embedder in code; None for the function's own."""
        if self.settings is not None:
            return self.settings.region
        if isinstance(self.lm, dspy.Embedder):
            region: str | None = self.lm.default_kwargs.get("aws_region_name")
            return region
        return region_of(self.lm)

    @property
    def guardrail(self) -> str | None:
        """The id or ARN of its guardrail; None without one."""
        if self.settings is not None:
            return self.settings.guardrail.id if self.settings.guardrail is not None else None
        held = getattr(self.lm, "kwargs", {}).get("guardrailConfig")
        return held.get("guardrailIdentifier") if isinstance(held, dict) else None

    @property
    def is_priced(self) -> bool:
        """Whether the cost of its calls is known."""
        if self.settings is not None and self.settings.price is not None:
            return True
        return not isinstance(self.lm, dspy.LM) or has_price(self.lm, self.region)

    @property
    def needs_litellm(self) -> bool:
        """Whether a plain call of it would go through LiteLLM."""
        if not isinstance(self.lm, dspy.BaseLM):
            return self.lm is not None
        with without_gateways():
            return uses_litellm(self.lm)


def function_models(project: Project, function: Function) -> list[Model]:
    """Return a function's models, in order of first use: its aliases, and what its program holds itself."""
    registry = project.config.models.registry
    aliases = [_of_alias(alias, registry[alias]) for alias in project.aliases(function)]
    return [*aliases, *_held(function)]


def unpriced(project: Project, function: Function) -> list[str]:
    """Return the places of a function's models whose calls have an unknown cost."""
    return [model.place for model in function_models(project, function) if not model.is_priced]


def _of_alias(alias: str, settings: ModelSettings) -> Model:
    try:
        lm = dspy.LM(settings.served_as, model_type=settings.model_type)
    except (ValueError, LMError):
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
