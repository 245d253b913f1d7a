"""Converse's answers as DSPy's native responses."""

from __future__ import annotations

from typing import Any

from dspy.lm15 import (
    CitationPart,
    ContinuationState,
    ImagePart,
    Message,
    Response,
    ServerError,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    Usage,
)

from dspy_lambda.models.bedrock.converse.content import PROVIDER, REDACTED, SIGNATURE

_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_call",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
    "malformed_model_output": "error",
    "malformed_tool_use": "error",
}


def response_of(data: Any, model: str) -> Response:
    """Return the response for the body of an answer.

    Raises:
        ServerError: it is not Converse's, for example an error with status 200.
    """
    message = _mapping(_mapping(data).get("output")).get("message")
    content = _mapping(message).get("content")
    if not isinstance(content, list) or not isinstance(data.get("stopReason"), str):
        raise ServerError(f"{PROVIDER}: the answer is not one of Converse", provider=PROVIDER)
    try:
        parts = [part for block in content for part in _parts(_mapping(block))]
    except (TypeError, ValueError):  # lm15 checks the values of its parts
        raise ServerError(f"{PROVIDER}: a block of the answer cannot be read", provider=PROVIDER) from None
    return Response(
        id=None,
        model=model,
        message=Message(role="assistant", parts=tuple(parts) or (TextPart(text=""),)),
        finish_reason=finish_reason(data["stopReason"], any(isinstance(part, ToolCallPart) for part in parts)),
        usage=usage_of(data.get("usage")),
        provider_data={name: data[name] for name in ("stopReason", "metrics", "trace") if name in data},
    )


def finish_reason(stop_reason: str, has_tool_call: bool = False) -> str:
    """Return DSPy's name of a `stopReason`."""
    return "tool_call" if has_tool_call and stop_reason == "end_turn" else _REASONS.get(stop_reason, "stop")


def usage_of(data: Any) -> Usage:
    """Return the usage. Unlike Converse's, its input tokens include those that the cache read or wrote."""
    found = _mapping(data)
    read, written = _count(found, "cacheReadInputTokens"), _count(found, "cacheWriteInputTokens")
    inputs = _count(found, "inputTokens")
    return Usage(
        input_tokens=None if inputs is None else inputs + (read or 0) + (written or 0),
        output_tokens=_count(found, "outputTokens"),
        cache_read_tokens=read,
        cache_write_tokens=written,
    )


def _parts(block: dict[str, Any]) -> list[Any]:
    if isinstance(block.get("text"), str):
        return [TextPart(text=block["text"])]
    if "toolUse" in block:
        return [_tool_call(_mapping(block["toolUse"]))]
    if "reasoningContent" in block:
        return [_thinking(_mapping(block["reasoningContent"]))]
    if "citationsContent" in block:
        return _cited(_mapping(block["citationsContent"]))
    if "image" in block:
        image = _mapping(block["image"])
        data = _mapping(image.get("source")).get("bytes")
        return [ImagePart(media_type=f"image/{image.get('format', 'png')}", data=data)] if data else []
    return []


def _tool_call(use: dict[str, Any]) -> ToolCallPart:
    if not use.get("name") or not use.get("toolUseId"):
        raise ServerError(f"{PROVIDER}: a tool call without a name or an id", provider=PROVIDER)
    return ToolCallPart(id=use["toolUseId"], name=use["name"], input=_mapping(use.get("input")))


def _thinking(content: dict[str, Any]) -> ThinkingPart:
    text = _mapping(content.get("reasoningText"))
    states = []
    if text.get("signature"):
        states.append(ContinuationState(provider=PROVIDER, kind=SIGNATURE, data={"signature": text["signature"]}))
    if content.get("redactedContent"):
        states.append(ContinuationState(provider=PROVIDER, kind=REDACTED, data={"data": content["redactedContent"]}))
    return ThinkingPart(text=str(text.get("text") or ""), continuation=tuple(states))


def _cited(content: dict[str, Any]) -> list[Any]:
    texts = [str(_mapping(item).get("text") or "") for item in content.get("content") or ()]
    found: list[Any] = [TextPart(text="".join(texts))]
    for citation in content.get("citations") or ():
        if part := citation_of(_mapping(citation)):
            found.append(CitationPart(**part))
    return found


def citation_of(citation: dict[str, Any]) -> dict[str, str]:
    """Return the fields of a citation that DSPy knows; empty if it has none of them."""
    texts = [str(_mapping(item).get("text") or "") for item in citation.get("sourceContent") or ()]
    web = _mapping(_mapping(citation.get("location")).get("web"))
    found = {"title": citation.get("title"), "url": web.get("url"), "text": "".join(texts)}
    return {name: value for name, value in found.items() if isinstance(value, str) and value}


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _count(found: dict[str, Any], name: str) -> int | None:
    value = found.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
