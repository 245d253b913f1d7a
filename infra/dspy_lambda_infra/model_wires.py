"""The providers' wire formats: converts their requests to chat completion requests, and completions to answers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

Document = dict[str, Any]


@dataclass(frozen=True)
class Wire:
    """One format.

    Attributes:
        path: the route.
        read: converts a request to a chat completion request.
        write: converts a chat completion to an answer in this format.
        events: converts it to the data of server-sent events, one per word of the text.
    """

    path: str
    read: Callable[[Document], Document]
    write: Callable[[Document], Document]
    events: Callable[[Document], Iterable[Document | str]]

    def stream(self, document: Document) -> bytes:
        """Return a completion as server-sent events."""
        return b"".join(map(_event, self.events(document)))


def _event(data: Document | str) -> bytes:
    if isinstance(data, str):
        return f"data: {data}\n\n".encode()
    name = f"event: {data['type']}\n" if isinstance(data.get("type"), str) else ""
    return f"{name}data: {json.dumps(data)}\n\n".encode()


def _content(document: Document) -> str:
    return str(document["choices"][0]["message"]["content"])


def _words(document: Document) -> list[str]:
    return [word for word in re.findall(r"\S*\s*", _content(document)) if word]


# https://platform.openai.com/docs/api-reference/chat/create
def _chat_events(document: Document) -> Iterable[Document | str]:
    head = {key: document[key] for key in ("id", "created", "model")} | {"object": "chat.completion.chunk"}
    for delta in [{"role": "assistant", "content": ""}, *({"content": word} for word in _words(document))]:
        yield {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    yield {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": document["choices"][0]["finish_reason"]}]}
    yield {**head, "choices": [], "usage": document["usage"]}
    yield "[DONE]"


# https://platform.openai.com/docs/api-reference/responses/create
def _read_responses(body: Document) -> Document:
    given = body["input"]
    messages = [{"role": "user", "content": given}] if isinstance(given, str) else given
    system = [{"role": "system", "content": body["instructions"]}] if body.get("instructions") else []
    # Some clients send "developer" where chat completions use "system".
    return {**body, "messages": system + [{**m, "role": _role(m)} for m in messages if m.get("content")]}


def _role(message: Document) -> str:
    return "system" if message.get("role") == "developer" else str(message.get("role"))


def _write_responses(document: Document) -> Document:
    usage = document["usage"]
    text = {"type": "output_text", "text": _content(document), "annotations": []}
    message = {"id": "msg_embedded", "type": "message", "role": "assistant", "status": "completed", "content": [text]}
    return {
        "id": "resp_embedded",
        "object": "response",
        "created_at": 0,
        "status": "completed",
        "model": document["model"],
        "output": [message],
        "usage": {
            "input_tokens": usage["prompt_tokens"],
            "output_tokens": usage["completion_tokens"],
            "total_tokens": usage["total_tokens"],
        },
    }


def _responses_events(document: Document) -> Iterable[Document]:
    whole = _write_responses(document)
    yield {"type": "response.created", "response": {**whole, "status": "in_progress", "output": []}}
    for word in _words(document):
        yield {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": word}
    yield {"type": "response.completed", "response": whole}


# https://docs.anthropic.com/en/api/messages
def _read_messages(body: Document) -> Document:
    system = [{"role": "system", "content": body["system"]}] if body.get("system") else []
    return {**body, "messages": system + body["messages"]}


def _write_messages(document: Document) -> Document:
    usage = document["usage"]
    return {
        "id": "msg_embedded",
        "type": "message",
        "role": "assistant",
        "model": document["model"],
        "content": [{"type": "text", "text": _content(document)}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": usage["prompt_tokens"], "output_tokens": usage["completion_tokens"]},
    }


def _messages_events(document: Document) -> Iterable[Document]:
    whole = _write_messages(document)
    yield {"type": "message_start", "message": {**whole, "content": [], "stop_reason": None}}
    yield {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    for word in _words(document):
        yield {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}}
    yield {"type": "content_block_stop", "index": 0}
    yield {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": whole["usage"]}
    yield {"type": "message_stop"}


# https://ai.google.dev/api/generate-content
def _read_gemini(body: Document) -> Document:
    system = body.get("systemInstruction") or {}
    turns = [("system", system), *(("user" if t.get("role") != "model" else "assistant", t) for t in body["contents"])]
    return {**body, "messages": [{"role": role, "content": turn["parts"]} for role, turn in turns if turn.get("parts")]}


def _write_gemini(document: Document) -> Document:
    return _gemini(document, _content(document)) | {"usageMetadata": _gemini_usage(document)}


def _gemini_events(document: Document) -> Iterable[Document]:
    for word in _words(document):
        yield _gemini(document, word)
    yield _gemini(document, "") | {"usageMetadata": _gemini_usage(document)}


def _gemini(document: Document, text: str) -> Document:
    content = {"role": "model", "parts": [{"text": text}]}
    return {"candidates": [{"content": content, "finishReason": "STOP"}], "modelVersion": document["model"]}


def _gemini_usage(document: Document) -> Document:
    usage = document["usage"]
    return {
        "promptTokenCount": usage["prompt_tokens"],
        "candidatesTokenCount": usage["completion_tokens"],
        "totalTokenCount": usage["total_tokens"],
    }


CHAT = Wire("/v1/chat/completions", lambda body: body, lambda document: document, _chat_events)
WIRES = [
    CHAT,
    Wire("/v1/responses", _read_responses, _write_responses, _responses_events),
    Wire("/v1/messages", _read_messages, _write_messages, _messages_events),
    Wire("/v1/models/{model}:{method}", _read_gemini, _write_gemini, _gemini_events),
]
