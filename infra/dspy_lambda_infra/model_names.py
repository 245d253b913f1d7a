"""Misspelled providers and Regions of models, which would otherwise fail with the first call."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Iterable

from dspy_lambda.dspy_patches.insides import priced_providers
from dspy_lambda.errors import ConfigError
from dspy_lambda_infra.config import CONFIG_FILE, Config

# Providers that LiteLLM serves without listing a model of theirs, and DSPy's own spellings.
_UNLISTED = {"custom_openai", "hosted_vllm", "llamafile", "lm_studio", "ollama", "ollama_chat", "vllm", "xinference"}


def check_providers(config: Config) -> None:
    """Refuse a model whose provider is a misspelled one.

    A provider that resembles no known one is left to LiteLLM, which may know it.

    Raises:
        ConfigError: names the provider that was probably meant.
    """
    for alias, settings in config.models.registry.items():
        provider, separator, model = settings.model.partition("/")
        if separator and (meant := _similar(provider, _providers())):
            raise ConfigError(
                f"{CONFIG_FILE}: models.registry.{alias}.model: no provider {provider!r} is known; "
                f"did you mean {meant}/{model}?"
            )


def unknown_region(region: str) -> str | None:
    """Return what to say about a Region that AWS does not have, or None if it has it."""
    from boto3 import Session

    session = Session()
    known = {
        region
        for partition in session.get_available_partitions()
        for region in session.get_available_regions("lambda", partition_name=partition)
    }
    if region in known:
        return None
    near = difflib.get_close_matches(region, known, n=1)
    return f"{region}: AWS's SDK knows no such Region" + (f"; did you mean {near[0]}?" if near else "")


@functools.cache
def _providers() -> frozenset[str]:
    return frozenset(priced_providers() | _UNLISTED)


def _similar(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that this one resembles; None if it is known itself, or resembles none."""
    if name in known:
        return None
    return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=0.8)), None)
