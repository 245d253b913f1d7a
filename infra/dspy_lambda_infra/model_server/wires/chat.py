"""OpenAI's chat completions, also on Bedrock's doors.

https://platform.openai.com/docs/api-reference/chat/create
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from dspy_lambda_infra.model_server.wires.wire import Document, Wire, content, reasoning, tool_calls, words


def _read(body: Document) -> Document:
    if not isinstance(body["messages"], list):
        raise TypeError("messages must be a list")
    return body


def _events(document: Document) -> Iterable[Document | str]:
    head = {key: document[key] for key in ("id", "created", "model")} | {"object": "chat.completion.chunk"}
    deltas = [
        {"role": "assistant", "content": ""},
        *({"reasoning_content": word} for word in words(reasoning(document))),
        *({"content": word} for word in words(content(document))),
        *(
            {"tool_calls": [{"index": n, "id": call.pop("id"), "type": "function", "function": call}]}
            for n, call in enumerate(tool_calls(document))
        ),
    ]
    for delta in deltas:
        yield {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    yield {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": document["choices"][0]["finish_reason"]}]}
    yield {**head, "choices": [], "usage": document["usage"]}
    yield "[DONE]"


# Bedrock's door bedrock-mantle-chat has the same path on its own host. Its requests are told apart by their signature.
CHAT = Wire("/v1/chat/completions", _read, lambda document: document, _events)
BEDROCK_CHAT = replace(CHAT, path="/openai/v1/chat/completions", service="bedrock")
