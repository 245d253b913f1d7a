"""Bedrock's Converse and ConverseStream.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from dspy_lambda_infra.model_server import event_stream
from dspy_lambda_infra.model_server.counts import cached_tokens
from dspy_lambda_infra.model_server.failures import Failure
from dspy_lambda_infra.model_server.wires.wire import (
    Document,
    Wire,
    content,
    function,
    json_schema,
    named,
    reasoning,
    tool_calls,
    words,
)

_STOP_REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "content_filtered",
}
# Which keys of additionalModelRequestFields ask for reasoning: Claude's two, Nova's, and gpt-oss's.
_REASONING = ("thinking", "reasoning_config", "reasoningConfig", "reasoning_effort")
_PADDING = "abcdefgh"  # Bedrock pads its events to hide the lengths of tokens; a client must ignore it


def _read(body: Document) -> Document:
    messages = [{"role": "system", "content": body["system"]}] if body.get("system") else []
    for message in body["messages"]:
        results = [block["toolResult"] for block in message["content"] if "toolResult" in block]
        messages += [{"role": "tool", "content": result["content"]} for result in results] or [message]
    blocks = [block for message in messages for block in message["content"]]
    more = body.get("additionalModelRequestFields") or {}
    wanted = [more[key] for key in _REASONING if key in more]
    return {
        "model": body["model"],
        "messages": messages,
        "cached_text": _cached_text(blocks),
        "guarded": "guardrailConfig" in body,
        "reasoning_effort": "medium" if any(_is_on(value) for value in wanted) else None,
        **_read_tools(body.get("toolConfig") or {}),
        **_read_format(body.get("outputConfig") or {}),
    }


def _is_on(value: Any) -> bool:
    return not isinstance(value, dict) or value.get("type") not in ("disabled", None)


def _cached_text(blocks: list[Document]) -> str:
    """Return the prompt's text up to its last cache point."""
    last = max((n for n, block in enumerate(blocks) if "cachePoint" in block), default=0)
    return "\n".join(block.get("text", "") for block in blocks[:last])


def _read_tools(config: Document) -> Document:
    specs = [tool["toolSpec"] for tool in config.get("tools", []) if "toolSpec" in tool]
    choice = config.get("toolChoice") or {}
    wanted = named(choice["tool"]["name"]) if "tool" in choice else "required" if "any" in choice else "auto"
    return {
        "tools": [function(spec["name"], spec["inputSchema"]["json"]) for spec in specs],
        "tool_choice": wanted,
    }


def _read_format(config: Document) -> Document:
    form = config.get("textFormat") or {}
    if form.get("type") != "json_schema":
        return {}
    return {"response_format": json_schema(json.loads(form["structure"]["jsonSchema"]["schema"]))}


def _content(document: Document) -> Iterable[Document]:
    if thought := reasoning(document):
        yield {"reasoningContent": {"reasoningText": {"text": thought, "signature": "embedded"}}}
    if text := content(document):
        yield {"text": text}
    for call in tool_calls(document):
        used = {"toolUseId": call["id"], "name": call["name"], "input": json.loads(call["arguments"])}
        yield {"toolUse": used}


def _write(document: Document) -> Document:
    message = {"role": "assistant", "content": list(_content(document))}
    return {"output": {"message": message}, "stopReason": _stop_reason(document), **_metadata(document)}


def _stop_reason(document: Document) -> str:
    reason = _STOP_REASONS[document["choices"][0]["finish_reason"]]
    return "guardrail_intervened" if reason == "content_filtered" and document.get("guarded") else reason


def _metadata(document: Document) -> Document:
    usage = document["usage"]
    read, written = cached_tokens(usage)
    counted = {
        "inputTokens": usage["prompt_tokens"] - read - written,
        "outputTokens": usage["completion_tokens"],
        "totalTokens": usage["total_tokens"],
        "cacheReadInputTokens": read,
        "cacheWriteInputTokens": written,
    }
    return {"usage": counted, "metrics": {"latencyMs": 1}}


def _events(document: Document) -> Iterable[tuple[str, Document]]:
    yield "messageStart", {"role": "assistant"}
    for index, block in enumerate(_content(document)):
        place = {"contentBlockIndex": index}
        if used := block.get("toolUse"):  # Bedrock sends no start of a text
            start = {"toolUse": {"toolUseId": used["toolUseId"], "name": used["name"]}}
            yield "contentBlockStart", {"start": start, **place}
        for delta in _deltas(block):
            yield "contentBlockDelta", {"delta": delta, **place}
        yield "contentBlockStop", place
    yield "messageStop", {"stopReason": _stop_reason(document)}
    yield "metadata", _metadata(document)


def _deltas(block: Document) -> Iterable[Document]:
    if used := block.get("toolUse"):
        return [{"toolUse": {"input": part}} for part in words(json.dumps(used["input"]))]
    if thought := block.get("reasoningContent"):
        texts = [{"reasoningContent": {"text": word}} for word in words(thought["reasoningText"]["text"])]
        return [*texts, {"reasoningContent": {"signature": "embedded"}}]
    return [{"text": word} for word in words(block["text"])]


def _frame(event: tuple[str, Document] | Failure) -> bytes:
    if isinstance(event, Failure):
        # The stream's members are the exceptions' names, with a small first letter.
        return event_stream.exception(event.aws[0].lower() + event.aws[1:], _error(event))
    name, payload = event
    return event_stream.event(name, {**payload, "p": _PADDING})


def _error(failure: Failure) -> Document:
    original = {"originalStatusCode": 500} if failure.aws.startswith("Model") and failure.status == 424 else {}
    return {"message": failure.message, **original}


CONVERSE = Wire(
    "/model/{model}/converse",
    _read,
    _write,
    error=_error,
    streams=lambda _: False,
    service="bedrock",
    native=True,
)
CONVERSE_STREAM = replace(
    CONVERSE,
    path="/model/{model}/converse-stream",
    events=_events,
    frame=_frame,
    stream_error=lambda failure: failure,
    streams=lambda _: True,
    stream_type=event_stream.CONTENT_TYPE,
)
