"""Anthropic's messages, also on Bedrock's door for them.

https://docs.anthropic.com/en/api/messages
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

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

_STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}
# https://docs.anthropic.com/en/api/errors
_ERRORS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    429: "rate_limit_error",
    503: "overloaded_error",
}


def _read(body: Document) -> Document:
    messages = [{"role": "system", "content": body["system"]}] if body.get("system") else []
    for message in body["messages"]:
        results = [part for part in _parts(message) if part.get("type") == "tool_result"]
        messages += [{"role": "tool", "content": part.get("content")} for part in results] or [message]
    read: Document = {**body, "messages": messages, "cached_text": _cached_text(messages)}
    if tools := body.get("tools"):
        read["tools"] = [function(tool["name"], tool["input_schema"]) for tool in tools if "input_schema" in tool]
    if choice := body.get("tool_choice"):
        kind = choice["type"]
        read["tool_choice"] = named(choice["name"]) if kind == "tool" else {"any": "required"}.get(kind, kind)
    form = (body.get("output_config") or {}).get("format") or body.get("output_format") or {}
    if form.get("type") == "json_schema":
        read["response_format"] = json_schema(form["schema"])
    if (body.get("thinking") or {}).get("type") in ("enabled", "adaptive"):
        read["reasoning_effort"] = "medium"
    return read


def _parts(message: Document) -> list[Document]:
    given = message["content"]
    return given if isinstance(given, list) else [{"type": "text", "text": given}]


def _cached_text(messages: list[Document]) -> str:
    """Return the prompt's text up to its last cache breakpoint."""
    parts = [part for message in messages if message["content"] for part in _parts(message)]
    last = max((n for n, part in enumerate(parts, 1) if part.get("cache_control")), default=0)
    return "\n".join(part.get("text", "") for part in parts[:last])


def _content(document: Document) -> Iterable[Document]:
    if thought := reasoning(document):
        yield {"type": "thinking", "thinking": thought, "signature": "embedded"}
    if text := content(document):
        yield {"type": "text", "text": text}
    for call in tool_calls(document):
        yield {"type": "tool_use", "id": call["id"], "name": call["name"], "input": json.loads(call["arguments"])}


def _write(document: Document) -> Document:
    usage = document["usage"]
    read, written = cached_tokens(usage)
    counted = {"input_tokens": usage["prompt_tokens"] - read - written, "output_tokens": usage["completion_tokens"]}
    if read or written:
        counted |= {"cache_read_input_tokens": read, "cache_creation_input_tokens": written}
    return {
        "id": "msg_embedded",
        "type": "message",
        "role": "assistant",
        "model": document["model"],
        "content": list(_content(document)),
        "stop_reason": _STOP_REASONS[document["choices"][0]["finish_reason"]],
        "stop_sequence": None,
        "usage": counted,
    }


def _events(document: Document) -> Iterable[Document]:
    whole = _write(document)
    yield {"type": "message_start", "message": {**whole, "content": [], "stop_reason": None}}
    for index, block in enumerate(whole["content"]):
        empty, deltas = _deltas(block)
        yield {"type": "content_block_start", "index": index, "content_block": empty}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    yield {
        "type": "message_delta",
        "delta": {"stop_reason": whole["stop_reason"], "stop_sequence": None},
        "usage": whole["usage"],
    }
    yield {"type": "message_stop"}


def _deltas(block: Document) -> tuple[Document, list[Any]]:
    """Return a content block as it starts, and what is added to it."""
    match block["type"]:
        case "thinking":
            thoughts = [{"type": "thinking_delta", "thinking": word} for word in words(block["thinking"])]
            signature = {"type": "signature_delta", "signature": block["signature"]}
            return {"type": "thinking", "thinking": "", "signature": ""}, [*thoughts, signature]
        case "tool_use":
            given = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
            return {**block, "input": {}}, [given]
        case _:
            return {"type": "text", "text": ""}, [{"type": "text_delta", "text": word} for word in words(block["text"])]


def _error(failure: Failure) -> Document:
    kind = _ERRORS.get(failure.status, "api_error")
    return {"type": "error", "error": {"type": kind, "message": failure.message}}


MESSAGES = Wire("/v1/messages", _read, _write, _events, error=_error, stream_error=_error)
BEDROCK_MESSAGES = replace(MESSAGES, path="/anthropic/v1/messages", service="bedrock-mantle")
