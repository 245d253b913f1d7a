"""The price that the config gives for an alias, which replaces that of DSPy's price map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dspy_lambda.dspy_patches.insides import price_info

if TYPE_CHECKING:
    import dspy

    from dspy_lambda.config.schema import Price

_MILLION = 1_000_000


@dataclass(frozen=True)
class TokenPrice:
    """USD per token. Tokens read from a prompt cache and written to it have rates of their own."""

    input: float
    output: float
    cache_read: float
    cache_write: float

    def cost_usd(self, usage: Mapping[str, Any]) -> float | None:
        """Return the cost of one answer, or None if its usage, in the form of DSPy's history, has no token counts."""
        inputs = usage.get("prompt_tokens", usage.get("input_tokens"))
        outputs = usage.get("completion_tokens", usage.get("output_tokens"))
        if inputs is None or outputs is None:
            return None
        details = usage.get("prompt_tokens_details") or {}
        read, written = details.get("cached_tokens") or 0, details.get("cache_creation_tokens") or 0
        plain = inputs - read - written
        cost: float = plain * self.input + read * self.cache_read + written * self.cache_write + outputs * self.output
        return cost


def token_price(price: Price, lm: dspy.LM, region: str | None) -> TokenPrice:
    """Return an alias's price; cached tokens cost as much as others unless DSPy's price map has rates for them."""
    info = price_info(lm, region)
    each, output = price.input_per_million / _MILLION, price.output_per_million / _MILLION
    read, written = (info.get(key) for key in ("cache_read_input_token_cost", "cache_creation_input_token_cost"))
    return TokenPrice(each, output, each if read is None else read, each if written is None else written)


def apply_price(lm: Any, entry: dict[str, Any]) -> dict[str, Any]:
    """Set the cost in an LM call's history entry if the LM's alias has a price, and return the entry.

    A cache hit has no usage, and keeps its entry.
    """
    price, usage = getattr(lm, "price", None), entry.get("usage")
    if isinstance(price, TokenPrice) and usage and isinstance(usage, Mapping):
        entry["cost"] = price.cost_usd(usage)
        entry["cost_details"] = {"kind": "estimate", "currency": "USD", "source": "price in models.registry"}
    return entry
