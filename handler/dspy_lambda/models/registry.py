"""Create one LM per alias for the life of the environment; each call gets a copy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import dspy
from dspy.utils.exceptions import LMError

from dspy_lambda.call import Call
from dspy_lambda.config import CONFIG_FILE, Config, ModelSettings
from dspy_lambda.errors import ConfigError
from dspy_lambda.history import CallHistory, record
from dspy_lambda.limits import ModelLimit, spend
from dspy_lambda.models.prices import TokenPrice, token_price
from dspy_lambda.models.stage import STAGE
from dspy_lambda.settings import Settings

if TYPE_CHECKING:
    from dspy_lambda.models.fallback import Fallback

RETRIES = 3  # the default of dspy.LM


class ProgramLM(dspy.LM):  # type: ignore[misc]
    """An alias's LM. A copy belongs to one call: its usage counts there, and it sends no request after the deadline.

    Attributes:
        price: the alias's own price, or None for that of DSPy's price map.
        region: where a model on Bedrock is called, if its alias says so.
        alias: its name in the config.
        fell_back: the alias that failed before this one in the same LM call, and the reason; None for the first one.
    """

    call: Call | None = None
    limit: ModelLimit | None = None
    has_own_pool = True  # unlike LMs that programs make, which share theirs
    price: TokenPrice | None = None
    region: str | None = None
    alias: str | None = None
    fell_back: tuple[str, str] | None = None

    def for_call(self, call: Call) -> Self:
        """Create a copy for a call; it shares this LM's connections."""
        copied: Self = super().copy()
        copied.call = call
        copied.history = CallHistory(call)
        return copied

    def copy(self, **options: Any) -> Self:
        """Create a copy for the same call, with a separate history; the alias's price is not that of another model."""
        copied: Self = super().copy(**options)
        if copied.model != self.model:
            copied.price = None
        copied.history = CallHistory(copied.call)
        return copied

    def __deepcopy__(self, _: dict[int, Any]) -> Self:
        """Copy with the same connections and limit: dspy.Refine, for example, deep-copies modules with their LMs."""
        copied: Self = self.copy()
        return copied

    def abandon_slots(self) -> None:
        """Free the slots of abandoned calls."""
        if self.limit is not None:
            self.limit.abandon()

    def update_history(self, entry: dict[str, Any]) -> None:
        """Count an answered call in its usage and against the minute's quota."""
        record(self, entry)
        spend(self, (entry.get("usage") or {}).get("total_tokens") or 0)
        if (stage := STAGE.get()) is not None:
            stage.check_answer(entry)


class FallbackLM(ProgramLM):
    """The LM of an alias with fallbacks. A class of its own, so that calls of other aliases cost nothing more."""

    fallback: Fallback | None = None

    def __call__(self, prompt: Any = None, *, messages: Any = None, **options: Any) -> Any:
        if self.fallback is None:
            return super().__call__(prompt, messages=messages, **options)
        return self.fallback.call(self, prompt, messages, options)

    async def acall(self, prompt: Any = None, *, messages: Any = None, **options: Any) -> Any:
        if self.fallback is None:
            return await super().acall(prompt, messages=messages, **options)
        return await self.fallback.acall(self, prompt, messages, options)


def build_models(
    config: Config, aliases: set[str], project: Path, timeout_seconds: float, variables: Settings
) -> dict[str, ProgramLM]:
    """Create one LM for each alias in use; its copies share its connection pool.

    `timeout_seconds` limits each wait for the provider's next byte. DSPy's default is 600 s, longer than most functions
    may run. Each distinct timeout would open a separate pool, so all LMs use the same one.

    Raises:
        ConfigError: The environment variable that holds a model's key is not set.
    """
    return {
        alias: _build(alias, config.models.registry[alias], project / CONFIG_FILE, timeout_seconds, variables)
        for alias in sorted(aliases)
    }


def _build(alias: str, settings: ModelSettings, path: Path, timeout_seconds: float, variables: Settings) -> ProgramLM:
    options: dict[str, Any] = {"timeout": timeout_seconds, "num_retries": RETRIES}
    if key := _api_key(alias, settings, path, variables):
        options["api_key"] = key
    if base := variables.api_base or settings.api_base:
        options["api_base"] = base
    if settings.max_tokens is not None:
        options["max_tokens"] = settings.max_tokens
    if settings.temperature is not None:
        options["temperature"] = settings.temperature
    if settings.region is not None:
        options["aws_region_name"] = settings.region
    if settings.guardrail is not None:
        guardrail = settings.guardrail
        options["guardrailConfig"] = {"guardrailIdentifier": guardrail.id, "guardrailVersion": guardrail.version}
    try:
        kind = FallbackLM if settings.fallback else ProgramLM
        lm = kind(settings.served_as, model_type=settings.model_type, cache=settings.cache, **options)
    except (ValueError, LMError) as error:
        raise ConfigError(f"{path}: models.registry.{alias}: {error}") from None
    if settings.max_parallel_requests or settings.requests_per_minute or settings.tokens_per_minute:
        lm.limit = ModelLimit(settings)
    lm.region, lm.alias = settings.region, alias
    if settings.price is not None:
        lm.price = token_price(settings.price, lm, settings.region or variables.variables.get("AWS_REGION"))
    return lm


def _api_key(alias: str, settings: ModelSettings, path: Path, variables: Settings) -> str | None:
    key = variables.variables.get(settings.env) if settings.env else None
    if not key and settings.api_key is not None:
        key = settings.api_key.get_secret_value()
    if not key and settings.env:
        raise ConfigError(
            f"{path}: models.registry.{alias}.env: the environment variable {settings.env} is not set; "
            f"set it (for local runs, in the project's .env file)."
        )
    return key
