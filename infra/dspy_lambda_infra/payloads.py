"""Shows inputs, outputs and messages, as logs and traces have them, as printable lines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from dspy_lambda_infra.terminal import printable


def payload_lines(value: Any) -> list[str]:
    """Return the lines of a payload: a value, or its JSON, or a text; messages and fields each begin a line."""
    text = "\n".join(_readable(value))
    return [printable(line.replace("\t", "    ").rstrip(" ")) for line in text.split("\n")]


def _readable(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        try:
            parsed = json.loads(value)
        except (ValueError, RecursionError):
            parsed = value
        value = parsed if isinstance(parsed, dict | list) else value
    if isinstance(value, str):
        yield value
    elif isinstance(value, list) and all(isinstance(one, dict) and "role" in one for one in value):
        for message in value:
            yield f"{message['role']}: {_message(message)}".replace("\n", "\n  ")
    elif isinstance(value, dict):
        for name, item in value.items():
            yield f"{name}: {item if isinstance(item, str) else json.dumps(item, ensure_ascii=False)}"
    else:
        yield json.dumps(value, ensure_ascii=False)


def _message(message: dict[str, Any]) -> str:
    """Return a message's text: its `content`, or the contents of its `parts`.

    https://github.com/open-telemetry/semantic-conventions/blob/v1.41.0/docs/gen-ai/gen-ai-input-messages.json
    """
    content = message.get("content")
    if isinstance(content, str):
        return content
    parts = message.get("parts") or content
    if not isinstance(parts, list):
        return json.dumps(message, ensure_ascii=False)
    texts = [part.get("content", part.get("text")) if isinstance(part, dict) else part for part in parts]
    pairs = zip(texts, parts, strict=True)
    return "\n".join(text if isinstance(text, str) else json.dumps(part, ensure_ascii=False) for text, part in pairs)
