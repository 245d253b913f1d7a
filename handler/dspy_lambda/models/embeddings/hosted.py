"""What the hosted embedding models have in common: parts of a batch, each one request, and what an answer holds."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from dspy.utils.exceptions import LMProviderError
from pydantic_core import from_json

from dspy_lambda.dspy_patches.http_client import Answer, Request, http_error
from dspy_lambda.models.registry import RETRIES


class Vectors(NamedTuple):
    """An answer: a vector for each text, and the tokens that are billed, or None if the provider does not say."""

    vectors: list[list[float]]
    tokens: int | None


class HostedModel:
    """One embedding model with the options of one call. For `provider_bounds` it takes the place of an LM.

    Attributes:
        provider, name: as in DSPy's price map.
        most_texts: how many texts fit into one request.
        region: where a model on Bedrock is called, which its price depends on.
        kwargs: the key, which log texts must not quote, and the timeout.
    """

    provider: str
    most_texts: int
    region: str | None = None

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        self.name = name
        self.options = options
        self.num_retries: int = RETRIES if options.get("num_retries") is None else options["num_retries"]
        self.kwargs = {key: options[key] for key in ("api_key", "timeout") if options.get(key) is not None}

    def request(self, texts: list[str]) -> Request:
        """Build the request for one part of a batch.

        Raises:
            LMNotConfiguredError: A key, credentials or a region is missing.
        """
        raise NotImplementedError

    def is_ready(self) -> bool:
        """Whether `request` returns without waiting for the network or a file."""
        return True

    def read(self, answer: Answer) -> Vectors:
        """Read an answer; any exception means that it is not one."""
        raise NotImplementedError

    def error(self, answer: Answer) -> Exception:
        """Return the error for an answer that is not 200."""
        return http_error(answer)

    def vectors(self, answer: Answer, texts: list[str]) -> Vectors:
        """Read the answer to these texts.

        Raises:
            LMProviderError: The answer does not hold a vector for each text.
        """
        try:
            found = self.read(answer)
            if len(found.vectors) == len(texts) and all(_is_vector(vector) for vector in found.vectors):
                return found if _is_count(found.tokens) else Vectors(found.vectors, None)
        except (ValueError, KeyError, TypeError, AttributeError):
            pass
        raise LMProviderError(
            "The provider's answer does not hold one embedding for each text.", model=self.name, provider=self.provider
        )

    def set_options(self, *names: str) -> dict[str, Any]:
        """Return those of the named options that are set."""
        return {name: self.options[name] for name in names if self.options.get(name) is not None}


def _is_vector(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], float | int)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and 0 <= value < 2**53


def parsed(answer: Answer) -> Any:
    """Parse an answer's JSON.

    Raises:
        ValueError: It is not JSON.
    """
    return from_json(answer.body)


def first_of(*names: str) -> str | None:
    """Return the first of these environment variables that is set."""
    return next((value for name in names if (value := os.environ.get(name))), None)
