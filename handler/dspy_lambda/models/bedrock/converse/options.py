"""Options that Converse passes to each vendor's models in their own form."""

from __future__ import annotations

import re
from typing import Any

from dspy.lm15 import Config, Reasoning

from dspy_lambda.dspy_patches.lm15 import EFFORT_THINKING_BUDGETS, adapt, anthropic_adaptive_class, nearest_effort
from dspy_lambda.models.bedrock.converse.content import PROVIDER

NO_FIELD = "Converse has no field for it"
# Of DSPy's options, those that no model gets through Converse.
_UNKNOWN = ("seed", "frequency_penalty", "presence_penalty", "user_id", "logprobs", "store")

# "System prompts: No" in
# https://docs.aws.amazon.com/bedrock/latest/userguide/conversation-inference-supported-models-features.html
_WITHOUT_SYSTEM = re.compile(r"(mistral\.mi(s|x)tral-(7b|8x7b)-instruct|amazon\.titan-text)-")
# "`temperature` and `top_p` cannot both be specified for this model": Claude from 4.1 on.
_ONE_OF_BOTH = re.compile(r"anthropic\.claude-[a-z]+-(4-[1-9](?![0-9])|[5-9])")


def takes_system(model: str) -> bool:
    """Whether a model takes a system text."""
    return _WITHOUT_SYSTEM.search(model) is None


def takes_one_of_both(model: str) -> bool:
    """Whether a model refuses a temperature together with top_p."""
    return _ONE_OF_BOTH.search(model) is not None


def vendor_fields(model: str, config: Config) -> dict[str, Any]:
    """Return `additionalModelRequestFields` for a model; records what it cannot get."""
    for name in _UNKNOWN:
        if (asked := getattr(config, name)) is not None:
            adapt(f"config.{name}", "dropped", NO_FIELD, asked=asked, provider=PROVIDER)
    fields: dict[str, Any] = {}
    if config.top_k is not None:
        if "anthropic." in model:
            fields["top_k"] = config.top_k
        elif "amazon.nova" in model:
            fields["inferenceConfig"] = {"topK": config.top_k}
        else:
            adapt("config.top_k", "dropped", NO_FIELD, asked=config.top_k, provider=PROVIDER)
    if config.reasoning is not None:
        fields |= _reasoning(model, config.reasoning)
    return fields


def _reasoning(model: str, reasoning: Reasoning) -> dict[str, Any]:
    """Return how a vendor's models are told how long to think.

    https://docs.aws.amazon.com/bedrock/latest/userguide/inference-reasoning.html
    """
    if reasoning.is_off:
        return {}  # off is each vendor's default
    if "anthropic." in model:
        if anthropic_adaptive_class(model):
            levels = ("low", "medium", "high", "xhigh", "max")
            return {"thinking": {"type": "adaptive"}, "output_config": {"effort": _level(reasoning, levels)}}
        budget = reasoning.thinking_budget or EFFORT_THINKING_BUDGETS[reasoning.effort]
        return {"thinking": {"type": "enabled", "budget_tokens": budget}}
    if "amazon.nova-2" in model:
        level = _level(reasoning, ("low", "medium", "high"))
        return {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": level}}
    if "openai.gpt-oss" in model:
        return {"reasoning_effort": _level(reasoning, ("low", "medium", "high"))}
    adapt("config.reasoning", "dropped", "this model has no such option", asked=reasoning.effort, provider=PROVIDER)
    return {}


def _level(reasoning: Reasoning, levels: tuple[str, ...]) -> str:
    level: str = nearest_effort(reasoning.effort, levels)
    if level != reasoning.effort:
        reason = f"this model knows {', '.join(levels)}"
        adapt("config.reasoning.effort", "clamped", reason, asked=reasoning.effort, applied=level, provider=PROVIDER)
    return level


def thinking_budget(fields: dict[str, Any]) -> int:
    """Return the tokens that a model may think, which count toward its `maxTokens`; 0 if it has no budget."""
    thinking = fields.get("thinking")
    budget = thinking.get("budget_tokens") if isinstance(thinking, dict) else None
    return budget if isinstance(budget, int) else 0


def is_thinking(fields: dict[str, Any]) -> bool:
    """Whether these fields make Claude think before it answers."""
    thinking = fields.get("thinking")
    return isinstance(thinking, dict) and thinking.get("type") in ("enabled", "adaptive")


def is_at_full_effort(fields: dict[str, Any]) -> bool:
    """Whether these fields make Nova 2 reason at its highest effort, with which it refuses every `inferenceConfig`.

    https://docs.aws.amazon.com/nova/latest/nova2-userguide/extended-thinking.html
    """
    reasoning = fields.get("reasoningConfig")
    return isinstance(reasoning, dict) and reasoning.get("maxReasoningEffort") == "high"
