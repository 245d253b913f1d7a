"""Gemini's generateContent.

https://ai.google.dev/api/generate-content
"""

from __future__ import annotations

from collections.abc import Iterable

from dspy_lambda_infra.model_server.wires.wire import Document, Wire, content, words

_FINISH_REASONS = {"stop": "STOP", "length": "MAX_TOKENS", "content_filter": "SAFETY"}


def _read(body: Document) -> Document:
    system = body.get("systemInstruction") or {}
    turns = [("system", system), *(("user" if t.get("role") != "model" else "assistant", t) for t in body["contents"])]
    messages = [{"role": role, "content": turn["parts"]} for role, turn in turns if turn.get("parts")]
    # Its function declarations have a form of their own; this server does not call them.
    return {**body, "messages": messages, "tools": []}


def _streams(body: Document) -> bool:
    return body.get("method") == "streamGenerateContent"


def _write(document: Document) -> Document:
    reason = _FINISH_REASONS[document["choices"][0]["finish_reason"]]
    return _part(document, content(document), reason) | {"usageMetadata": _usage(document)}


def _events(document: Document) -> Iterable[Document]:
    reason = _FINISH_REASONS[document["choices"][0]["finish_reason"]]
    for word in words(content(document)):
        yield _part(document, word, reason)
    yield _part(document, "", reason) | {"usageMetadata": _usage(document)}


def _part(document: Document, text: str, reason: str) -> Document:
    parts = {"role": "model", "parts": [{"text": text}]}
    return {"candidates": [{"content": parts, "finishReason": reason}], "modelVersion": document["model"]}


def _usage(document: Document) -> Document:
    usage = document["usage"]
    return {
        "promptTokenCount": usage["prompt_tokens"],
        "candidatesTokenCount": usage["completion_tokens"],
        "totalTokenCount": usage["total_tokens"],
    }


GEMINI = Wire("/v1/models/{model}:{method}", _read, _write, _events, streams=_streams)
