"""The model server's answers as chat completions, from which each wire makes its own; and as embeddings.

A token is a word. Tokens up to a prompt's last cache point are read from the prompt cache if they were written to it
before.
"""

from __future__ import annotations

import json
import math
import zlib
from typing import Any

from dspy_lambda_infra.model_server.answers import answer, call_tool, text_of

_REASONING = "The first input says what to answer."
_MALFORMED = "I would rather not say."
_BLOCKED = "Sorry, the model cannot answer this question."  # the text that Bedrock proposes for a new guardrail


def count_tokens(text: str) -> int:
    """Count tokens the way this server does: one per word."""
    return len(text.split())


def completion(body: dict[str, Any], text: str) -> dict[str, Any]:
    """Return a chat completion with that text; its usage counts words."""
    prompt = sum(count_tokens(text_of(message)) for message in body["messages"])
    output = count_tokens(text)
    return {
        "id": "chatcmpl-embedded",
        "object": "chat.completion",
        "created": 0,
        "model": body["model"],
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
        "usage": {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output},
    }


def complete(
    body: dict[str, Any], *, samples: bool = False, fault: str | None = None, cache: set[str] | None = None
) -> dict[str, Any]:
    """Return what a model answers to a chat completion request: text, calls of tools, reasoning if it asks for it.

    Args:
        samples: see `answer`.
        fault: "malformed", "length" or "content_filter" (see `failures.py`).
        cache: the texts in the prompt cache; the prompt's is added.
    """
    called = None if fault else call_tool(body, samples=samples)
    text = _MALFORMED if fault == "malformed" else "" if called else answer(body, samples=samples)
    if fault in ("length", "content_filter"):
        text = _BLOCKED if body.get("guarded") and fault == "content_filter" else text[: len(text) // 2]
    document = completion(body, text)
    choice = document["choices"][0]
    if fault in ("length", "content_filter"):
        choice["finish_reason"] = fault
    if called:
        _add_call(document, *called)
    if body.get("reasoning_effort"):
        choice["message"]["reasoning_content"] = _REASONING
        _add_tokens(document, count_tokens(_REASONING))
    if cached := body.get("cached_text"):
        known = set() if cache is None else cache
        kind = "cached_tokens" if cached in known else "cache_write_tokens"
        document["usage"]["prompt_tokens_details"] = {kind: count_tokens(cached)}
        known.add(cached)
    if body.get("guarded"):
        document["guarded"] = True
    return document


def _add_call(document: dict[str, Any], name: str, arguments: dict[str, Any]) -> None:
    written = json.dumps(arguments)
    choice = document["choices"][0]
    choice["finish_reason"] = "tool_calls"
    called = {"id": "call_embedded", "type": "function", "function": {"name": name, "arguments": written}}
    choice["message"] |= {"content": None, "tool_calls": [called]}
    _add_tokens(document, count_tokens(written))


def _add_tokens(document: dict[str, Any], output: int) -> None:
    usage = document["usage"]
    usage["completion_tokens"] += output
    usage["total_tokens"] += output


def embed(body: dict[str, Any]) -> dict[str, Any]:
    """Return unit vectors for `texts`, of `dimensions` numbers: texts with common words have similar ones."""
    texts, dimensions = body["texts"], body["dimensions"]
    usage = {"prompt_tokens": sum(map(count_tokens, texts)), "completion_tokens": 0}
    vectors = [_vector(text, dimensions) for text in texts]
    return {"model": body["model"], "request": body, "vectors": vectors, "usage": usage}


def _vector(text: str, dimensions: int) -> list[float]:
    vector = [0.0] * dimensions
    for word in text.lower().split():
        vector[zlib.crc32(word.encode()) % dimensions] += 1.0
    length = math.sqrt(sum(number * number for number in vector)) or 1.0
    return [number / length for number in vector]
