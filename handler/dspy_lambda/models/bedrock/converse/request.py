"""DSPy's native request as the body of a Converse request."""

from __future__ import annotations

import json
from typing import Any

from dspy._vendor.lm15.adaptation import adapt
from dspy._vendor.lm15.providers.common import parts_to_text
from dspy.lm15 import FunctionTool, Request, UnsupportedFeatureError

from dspy_lambda.models.bedrock.converse.content import PROVIDER, Block, messages_of
from dspy_lambda.models.bedrock.converse.options import thinking_budget, vendor_fields

# Options of an LM that are Converse's own, under the names that LiteLLM uses, too.
PASSED = ("guardrailConfig", "performanceConfig", "requestMetadata", "thinking", "additionalModelRequestFields")


def body_of(request: Request, model: str, *, takes_schemas: bool) -> dict[str, Any]:
    """Return the JSON body of a request.

    Args:
        model: its id at Bedrock.
        takes_schemas: whether the model's answers can be held to a JSON schema.

    Raises:
        UnsupportedFeatureError: it contains what Converse cannot carry.
    """
    extra = dict(request.config.extensions or {})
    body: dict[str, Any] = {"messages": messages_of(request.messages)}
    if request.system:
        system = request.system if isinstance(request.system, str) else parts_to_text(request.system, provider=PROVIDER)
        if system.strip():
            body["system"] = [{"text": system}]
    fields = vendor_fields(model, request.config)
    fields |= extra.pop("additionalModelRequestFields", {})
    if "thinking" in extra:
        fields["thinking"] = extra.pop("thinking")
    if inference := _inference(request, thinking_budget(fields)):
        body["inferenceConfig"] = inference
    if tools := _tools(request, body["messages"]):
        body["toolConfig"] = tools
    _mark_prefix(request, body)
    if output := _output(request, takes_schemas):
        body["outputConfig"] = output
    if request.config.service_tier is not None:
        body["serviceTier"] = {"type": request.config.service_tier}
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
    if config.stop:
        found["stopSequences"] = list(config.stop)
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
    spec = {"name": name, "inputSchema": {"json": parameters or {"type": "object", "properties": {}}}}
    return {"toolSpec": spec | ({"description": description} if description else {})}


def _used(messages: list[Block]) -> list[str]:
    blocks = [block for message in messages for block in message["content"]]
    return list(dict.fromkeys(block["toolUse"]["name"] for block in blocks if "toolUse" in block))


def _mark_prefix(request: Request, body: dict[str, Any]) -> None:
    """Put a cache point after what later requests repeat.

    https://docs.aws.amazon.com/bedrock/latest/userguide/prompt-caching.html
    """
    cache = request.config.cache
    if cache is None or cache.mode == "off":
        return
    if cache.resource is not None:
        raise UnsupportedFeatureError(f"{PROVIDER}: Converse has no stored caches.", provider=PROVIDER)
    if cache.key is not None:
        adapt("config.cache.key", "dropped", "Converse caches by cache points", asked=cache.key, provider=PROVIDER)
    point: Block = {"cachePoint": {"type": "default"}}
    if cache.retention == "long":
        point["cachePoint"]["ttl"] = "1h"
    messages = body["messages"]
    if cache.prefix == "history":
        messages[-1]["content"].append(point)
    elif cache.prefix_until_index is not None:
        messages[min(cache.prefix_until_index, len(messages) - 1)]["content"].append(point)
    elif "system" in body:
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
