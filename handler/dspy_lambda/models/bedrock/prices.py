"""Find a Bedrock model in DSPy's price map, which keeps one model under several names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from dspy_lambda.models.bedrock.profiles import split_arn, split_profile

# DSPy's provider ids, and which of the map's namespaces (`litellm_provider`) come first for each.
_RUNTIME, _MANTLE = ("bedrock_converse", "bedrock", "bedrock_mantle"), ("bedrock_mantle", "bedrock_converse", "bedrock")
NAMESPACES = {
    "bedrock": _RUNTIME,
    "bedrock-chat": _RUNTIME,
    "bedrock-mantle-chat": _MANTLE,
    "bedrock-anthropic": _MANTLE,
}
_PREFIX = re.compile(r"(bedrock_mantle|bedrock)/")
# The Mantle doors' ids have no version, and some callers name a context size: `-20250929-v1:0`, `-1:0`, `-v1`, `:200k`.
_VERSION = re.compile(r"(-20[0-9]{6})?((-v[0-9]+)?(:[0-9]+[a-z]?)*|-[0-9]+:[0-9]+)$")


def find_price(prices: Mapping[str, Any], provider: str, model: str, region: str | None) -> dict[str, Any]:
    """Return the map's entry of a Bedrock model; empty if it has none with token prices.

    The Region's own price comes first, then the inference profile's, then that of the model behind the profile, which
    is what AWS charges where it lists no other price for the profile.

    Args:
        prices: DSPy's price map.
        provider: a key of NAMESPACES.
        region: where the model is called; an ARN's own Region takes precedence.
    """
    namespaces = NAMESPACES[provider]
    found: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for key, entry in prices.items():
        if isinstance(entry, dict) and entry.get("litellm_provider") in namespaces and _has_rates(entry):
            name = _PREFIX.sub("", key, count=1)
            found.setdefault(_VERSION.sub("", name), []).append((name, entry))
    for name in _names(model, region):
        if entries := found.get(_VERSION.sub("", name)):
            # Of several versions, the requested one; otherwise the newest.
            newest = max(entries, key=lambda one: (one[0] == name, one[0]))[0]
            same = [entry for one, entry in entries if one == newest]
            return dict(min(same, key=lambda entry: namespaces.index(entry["litellm_provider"])))
    return {}


def _names(model: str, region: str | None) -> Iterator[str]:
    model = model.removeprefix("converse/")
    if model.startswith("arn:"):
        arn = split_arn(model)
        if arn is None or arn.kind not in ("foundation-model", "inference-profile"):
            return  # what it runs, and what is billed for it, is not in its ARN
        model, region = arn.id, arn.region or region
    geography, base = split_profile(model)
    for name in dict.fromkeys((model, base)):
        if region and geography != "global":
            yield f"{region}/{name}"
        yield name


def _has_rates(entry: Mapping[str, Any]) -> bool:
    return all(isinstance(entry.get(f"{kind}_cost_per_token"), int | float) for kind in ("input", "output"))
