"""Prices of Bedrock's models by all names that DSPy's price map has for them, in the Region where they are called."""

from __future__ import annotations

import os
from contextvars import ContextVar
from typing import Any

from dspy_lambda.dspy_patches.insides import EXECUTION, METADATA, bedrock_info
from dspy_lambda.dspy_patches.patch import Function, Name, Patch
from dspy_lambda.models.bedrock.doors import PROVIDERS
from dspy_lambda.models.bedrock.patches import region_of

# The Region of the LM whose answer is being priced, if it has one of its own.
_REGION: ContextVar[str | None] = ContextVar("dspy_lambda_region", default=None)


def _by_all_names(model_info: Function) -> Function:
    def find(provider: str, model: str, *, namespaces: Any = None) -> Any:
        if provider not in PROVIDERS:
            return model_info(provider, model, namespaces=namespaces)
        return bedrock_info(provider, model, _REGION.get() or os.environ.get("AWS_REGION"))

    return find


def _in_its_region(price_result: Function) -> Function:
    def price(lm: Any, result: Any, response: Any, provider: Any, request: Any) -> None:
        if provider not in PROVIDERS:  # most calls: only Bedrock's prices depend on the Region
            price_result(lm, result, response, provider, request)
            return
        token = _REGION.set(getattr(lm, "region", None) or region_of(lm))
        try:
            price_result(lm, result, response, provider, request)
        finally:
            _REGION.reset(token)

    return price


BEDROCK_PRICES = Patch(
    "prices of Bedrock's models",
    "DSPy looks a model up in one namespace only, without its Region: of the 471 Bedrock chat models with a price in "
    "its map, 167 would have a cost (DSPy 3.4.1)",
    (
        Name(METADATA, "_load", ""),
        Name("dspy.clients.costs", "model_info", "provider model namespaces", wrap=_by_all_names),
        Name(EXECUTION, "_price_result", "lm result response provider request", wrap=_in_its_region),
    ),
)
