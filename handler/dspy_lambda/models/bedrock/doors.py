"""Which of Bedrock's APIs ("doors") serves a model, by its id alone: no request, and no import of DSPy."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Door = Literal["converse", "chat", "mantle-chat", "anthropic"]

# Families that DSPy's native engine was tried with on the OpenAI-compatible door (lm15's sweep of September 2026). That
# door takes JSON schemas, seeds and log probabilities, which Converse does not. All others answered 404 or 400 there.
_ON_CHAT = re.compile(
    r"(openai\.gpt-oss|deepseek\.v3\.[2-9]|qwen\.qwen3|moonshot(ai)?\.|zai\.|minimax\.|nvidia\.nemotron|google\.gemma-3"
    r"|mistral\.(mistral-large-3|ministral-3|magistral|voxtral|devstral))"
)
_SPELLED = {
    "bedrock-chat": "chat",
    "bedrock-mantle-chat": "mantle-chat",
    "bedrock-anthropic": "anthropic",
}
PROVIDERS = frozenset({"bedrock", *_SPELLED})  # DSPy's provider ids of the doors; Converse is `bedrock`
MANTLE: tuple[Door, ...] = ("mantle-chat", "anthropic")  # the doors of the bedrock-mantle endpoint, not bedrock-runtime


@dataclass(frozen=True)
class Route:
    """A Bedrock model and its door.

    Attributes:
        model_id: what Bedrock calls it: a foundation model, an inference profile, a provisioned throughput, or an ARN.
        reason: why this door, in words for people.
    """

    door: Door
    model_id: str
    reason: str

    @property
    def provider(self) -> str:
        """DSPy's provider id, one of PROVIDERS."""
        return "bedrock" if self.door == "converse" else f"bedrock-{self.door}"


def route(model: str, *, guarded: bool = False) -> Route | None:
    """Return the route of a DSPy model string, or None if the model is not on Bedrock.

    `bedrock/ID` chooses by the id; `bedrock/converse/ID`, `bedrock-chat:ID`, `bedrock-mantle-chat:ID` and
    `bedrock-anthropic:ID` name the door.

    Args:
        guarded: whether calls use a guardrail, which only Converse applies: the OpenAI-compatible door accepts its
            headers and ignores them.
    """
    head, separator, rest = model.partition(":")
    if separator and rest and head.replace("_", "-") in _SPELLED:
        return Route(_SPELLED[head.replace("_", "-")], rest, f"named by {head}:")  # type: ignore[arg-type]
    head, separator, rest = model.partition("/")
    if head != "bedrock" or not rest:
        return None
    if rest.startswith("converse/"):
        return Route("converse", rest.removeprefix("converse/"), "named by bedrock/converse/")
    if guarded:
        return Route("converse", rest, "only Converse applies guardrails")
    if _ON_CHAT.match(rest):
        return Route("chat", rest, "this family is served by the OpenAI-compatible door")
    return Route("converse", rest, "Converse serves every text model")


def misspelled(model: str) -> str | None:
    """Return how to write a model string that is meant for Bedrock but would go to LiteLLM, which fails at its call."""
    head, separator, rest = model.partition("/")
    if head.replace("_", "-") in _SPELLED:
        return f"{head}:{rest or 'ID'}"
    if head == "bedrock" and not rest:
        return "bedrock/ID"
    if model.partition(":")[0] == "bedrock" and separator == "":
        return "bedrock/" + model.removeprefix("bedrock:")
    return None


def model_string(model: str, door: Door | None, *, guarded: bool = False) -> str:
    """Return the DSPy model string that selects a `bedrock/` model's door; other models are returned unchanged.

    Args:
        door: the door to use; None chooses by the id.
    """
    found = route(model, guarded=guarded)
    if found is None or not model.startswith("bedrock/"):
        return model
    chosen = door or found.door
    return f"bedrock/converse/{found.model_id}" if chosen == "converse" else f"bedrock-{chosen}:{found.model_id}"
