"""The LM registry: one `dspy.LM` per alias for the life of the environment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dspy

from handler.config import CONFIG_FILE, Config, ModelSettings
from handler.errors import ConfigError


def build_models(
    config: Config, aliases: set[str], project: Path, timeout_seconds: float, variables: Mapping[str, str]
) -> dict[str, dspy.LM]:
    """One LM for each alias in use; its connection pool lives and is shared with it.

    `timeout_seconds` bounds each wait for the provider's next byte. DSPy's own default is 600 s, longer than most
    functions live, and each distinct timeout opens a pool of its own: so there is exactly one.

    Raises:
        ConfigError: the environment variable that holds a model's key is not set.
    """
    return {
        alias: _build(alias, config.models.registry[alias], project / CONFIG_FILE, timeout_seconds, variables)
        for alias in sorted(aliases)
    }


def _build(
    alias: str, settings: ModelSettings, path: Path, timeout_seconds: float, variables: Mapping[str, str]
) -> dspy.LM:
    options: dict[str, Any] = {"timeout": timeout_seconds}
    if key := _api_key(alias, settings, path, variables):
        options["api_key"] = key
    if base := variables.get("DSPY_LAMBDA_API_BASE") or settings.api_base:
        options["api_base"] = base
    if settings.max_tokens is not None:
        options["max_tokens"] = settings.max_tokens
    if settings.temperature is not None:
        options["temperature"] = settings.temperature
    try:
        return dspy.LM(settings.model, model_type=settings.model_type, cache=settings.cache, **options)
    except (ValueError, dspy.utils.exceptions.LMError) as error:
        raise ConfigError(f"{path}: models.registry.{alias}: {error}") from None


def _api_key(alias: str, settings: ModelSettings, path: Path, variables: Mapping[str, str]) -> str | None:
    key = variables.get(settings.env) if settings.env else None
    if not key and settings.api_key is not None:
        key = settings.api_key.get_secret_value()
    if not key and settings.env:
        raise ConfigError(
            f"{path}: models.registry.{alias}.env: the environment variable {settings.env} is not set; "
            f"set it (on this machine a line in the project's .env will do)."
        )
    return key
