"""DSPy's native request as the body of a Converse request."""

from __future__ import annotations

import json
from typing import Any

from dspy.lm15 import FunctionTool, Request, UnsupportedFeatureError

from dspy_lambda.dspy_patches.lm15 import adapt, parts_to_text
from dspy_lambda.models.bedrock.converse.content import PROVIDER, Block, checked_tool_name, messages_of
from dspy_lambda.models.bedrock.converse.options import (
    NO_FIELD,
    is_at_full_effort,
    is_thinking,
    takes_one_of_both,
    takes_system,
    thinking_budget,
    vendor_fields,
)

_OPENAIS = ("logit_bias", "metadata")  # options of OpenAI's that lm15 passes on, and that no model on Converse takes
_TIERS = ("priority", "default", "flex", "reserved")


def body_of(
    request: Request, model: str, *, takes_schemas: bool, takes_sampling: bool = True, takes_forced_tools: bool = True
) -> dict[str, Any]:
    """Return the JSON body of a request.

    Args:
        model: its id at Bedrock.
        takes_schemas: whether the model's answers can be held to a JSON schema.
        takes_sampling: whether the model takes a temperature, for example; newer ones refuse it, even the default.
        takes_forced_tools: whether the model can be told to use a tool.

    Raises:
        UnsupportedFeatureError: it contains what Converse cannot carry.
    """
    extra = dict(request.config.extensions or {})
    point = _cache_point(request)
    last = len(request.messages) - 1
    until = _cached_until(request, last) if point else None
    messages = messages_of(request.messages) if until is None else messages_of(request.messages, point, until)
    body: dict[str, Any] = {"messages": messages}
    if request.system:
        system = request.system if isinstance(request.system, str) else parts_to_text(request.system, provider=PROVIDER)
        if system.strip() and takes_system(model):
            body["system"] = [{"text": system}]
        elif system.strip():
            messages[0]["content"].insert(0, {"text": system})
            adapt("system", "client_side", "this model takes no system text; the first message begins with it")
    fields = vendor_fields(model, request.config)
    budget = thinking_budget(fields)
    fields |= extra.pop("additionalModelRequestFields", {})
    if "thinking" in extra:
        fields["thinking"] = extra.pop("thinking")
    if thinking_budget(fields) and _lacks_thoughts(messages):
        reason = "Claude must see its thoughts before each tool call, and DSPy's history has none"
        adapt("config.reasoning", "dropped", reason, asked=fields.pop("thinking"), provider=PROVIDER)
        budget = 0
    if (asked := thinking_budget(fields)) >= (request.config.max_tokens or 0) or budget:
        budget = asked  # otherwise the caller's max_tokens include the budget, as Claude's own do
    if inference := _inference(request, budget):
        body["inferenceConfig"] = inference
    if tools := _tools(request, messages):
        body["toolConfig"] = tools
    _drop_what_sampling_excludes(body, fields, model, takes_sampling)
    if not takes_forced_tools:
        _drop_tool_choice(body, "this model refuses a forced tool")
    if is_thinking(fields):
        _drop_what_thinking_excludes(body, fields)
    if not body.get("inferenceConfig", True):
        del body["inferenceConfig"]
    if point and until is None:
        _mark_prefix(body, point)
    if output := _output(request, takes_schemas):
        body["outputConfig"] = output
    if (tier := request.config.service_tier) is not None:
        if tier in _TIERS:
            body["serviceTier"] = {"type": tier}
        else:
            reason = f"Converse knows {', '.join(_TIERS)}"
            adapt("config.service_tier", "dropped", reason, asked=tier, provider=PROVIDER)
    for name in _OPENAIS:
        if name in extra:
            adapt(f"config.extensions.{name}", "dropped", NO_FIELD, asked=extra.pop(name), provider=PROVIDER)
    for name in ("guardrailConfig", "performanceConfig", "requestMetadata"):
        if name in extra:
            body[name] = extra.pop(name)
    if fields := fields | extra:  # like LiteLLM, pass on what is nobody else's
        body["additionalModelRequestFields"] = fields
    return body


def _inference(request: Request, budget: int) -> dict[str, Any]:
    config = request.config
    found: dict[str, Any] = {}
    if config.max_tokens is not None:
        found["maxTokens"] = config.max_tokens + budget
    if config.temperature is not None:
        found["temperature"] = min(config.temperature, 1.0)
        if config.temperature > 1:
            reason = "Converse takes temperatures of 0 to 1"
            adapt("config.temperature", "clamped", reason, asked=config.temperature, applied=1.0, provider=PROVIDER)
    if config.top_p is not None:
        found["topP"] = config.top_p
    if stop := [text for text in config.stop if text]:
        found["stopSequences"] = stop
    return found


def _tools(request: Request, messages: list[Block]) -> dict[str, Any]:
    choice = request.config.tool_choice
    tools = request.tools
    if any(not isinstance(tool, FunctionTool) for tool in tools):
        raise UnsupportedFeatureError(f"{PROVIDER}: Converse has no built-in tools; pass functions.", provider=PROVIDER)
    if choice is not None and choice.mode == "none":
        tools = ()
    elif choice is not None and choice.allowed and set(choice.allowed) != {tool.name for tool in tools}:
        tools = tuple(tool for tool in tools if tool.name in choice.allowed)
        reason = "Converse cannot restrict the choice to some tools; only those are sent"
        adapt("config.tool_choice.allowed", "client_side", reason, asked=list(choice.allowed), provider=PROVIDER)
    specs = [_spec(tool.name, tool.description, tool.parameters) for tool in tools]
    # A conversation that used tools must name them, even if the model may use no more.
    specs = specs or [_spec(name, None, None) for name in _used(messages)]
    if not specs:
        return {}
    config: dict[str, Any] = {"tools": specs}
    if choice is not None and choice.mode == "required":
        only = choice.allowed[0] if len(choice.allowed) == 1 else None
        config["toolChoice"] = {"tool": {"name": only}} if only else {"any": {}}
    return config


def _spec(name: str, description: str | None, parameters: Any) -> Block:
    schema = {"json": parameters or {"type": "object", "properties": {}}}
    spec: Block = {"name": checked_tool_name(name), "inputSchema": schema}
    if description and description.strip():
        spec["description"] = description
    return {"toolSpec": spec}


def _used(messages: list[Block]) -> list[str]:
    blocks = [block for message in messages for block in message["content"]]
    return list(dict.fromkeys(block["toolUse"]["name"] for block in blocks if "toolUse" in block))


def _drop_what_sampling_excludes(
    body: dict[str, Any], fields: dict[str, Any], model: str, takes_sampling: bool
) -> None:
    """Leave out how to sample where a model refuses it, or refuses two ways at once, instead of failing."""
    inference = body.get("inferenceConfig", {})
    dropped, reason = [(inference, "temperature"), (inference, "topP"), (fields, "top_k")], "this model refuses it"
    if is_at_full_effort(fields):
        dropped, reason = [(inference, name) for name in ("maxTokens", "temperature", "topP")], "not at high effort"
        dropped.append((fields, "inferenceConfig"))
    elif takes_sampling:
        both = "temperature" in inference and takes_one_of_both(model)
        dropped, reason = [(inference, "topP")] if both else [], "this model takes a temperature or top_p, not both"
    for options, name in dropped:
        if name in options:
            adapt(f"config.{name}", "dropped", reason, asked=options.pop(name), provider=PROVIDER)


def _drop_what_thinking_excludes(body: dict[str, Any], fields: dict[str, Any]) -> None:
    """Leave out what Claude refuses while it thinks, instead of failing.

    https://docs.aws.amazon.com/bedrock/latest/userguide/claude-messages-extended-thinking.html
    """
    reason = "Claude does not take it while thinking"
    inference = body.get("inferenceConfig", {})
    for options, name, asked in ((inference, "temperature", 1.0), (inference, "topP", None), (fields, "top_k", None)):
        if name in options and options[name] != asked:
            adapt(f"config.{name}", "dropped", reason, asked=options.pop(name), provider=PROVIDER)
    _drop_tool_choice(body, reason)


def _lacks_thoughts(messages: list[Block]) -> bool:
    """Whether the last turn of the model has tool calls without the thoughts that led to them.

    https://docs.aws.amazon.com/bedrock/latest/userguide/claude-messages-extended-thinking.html
    """
    last: list[Block] = next((turn["content"] for turn in reversed(messages) if turn["role"] == "assistant"), [])
    return any("toolUse" in block for block in last) and "reasoningContent" not in last[0]


def _drop_tool_choice(body: dict[str, Any], reason: str) -> None:
    if (choice := body.get("toolConfig", {}).pop("toolChoice", None)) is not None:
        adapt("config.tool_choice", "dropped", reason, asked=choice, provider=PROVIDER)


def _cache_point(request: Request) -> Block | None:
    cache = request.config.cache
    if cache is None or cache.mode == "off":
        return None
    if cache.resource is not None:
        raise UnsupportedFeatureError(f"{PROVIDER}: Converse has no stored caches.", provider=PROVIDER)
    if cache.key is not None:
        adapt("config.cache.key", "dropped", "Converse caches by cache points", asked=cache.key, provider=PROVIDER)
    return {"cachePoint": {"type": "default"} | ({"ttl": "1h"} if cache.retention == "long" else {})}


def _cached_until(request: Request, last: int) -> int | None:
    """Return the message that later requests repeat as the last one; None if only system text and tools repeat."""
    cache = request.config.cache
    if cache.prefix == "history":
        return last
    return None if cache.prefix_until_index is None else min(cache.prefix_until_index, last)


def _mark_prefix(body: dict[str, Any], point: Block) -> None:
    """Put a cache point after what later requests repeat.

    https://docs.aws.amazon.com/bedrock/latest/userguide/prompt-caching.html
    """
    if "system" in body:
        body["system"].append(point)
    elif "toolConfig" in body:
        body["toolConfig"]["tools"].append(point)


def _output(request: Request, takes_schemas: bool) -> dict[str, Any] | None:
    wanted = request.config.response_format
    if wanted is None:
        return None
    if wanted.get("type") != "json_schema" or not takes_schemas:
        reason = "this model takes no JSON schema through Converse; the prompt describes the answer"
        adapt("config.response_format", "dropped", reason, asked=wanted.get("type"), provider=PROVIDER)
        return None
    schema = {"name": wanted.get("name") or "response", "schema": json.dumps(wanted["schema"])}
    return {"textFormat": {"type": "json_schema", "structure": {"jsonSchema": schema}}}
