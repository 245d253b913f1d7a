"""Messages of LM calls in the JSON form of OpenTelemetry's GenAI conventions 1.41.0.

https://github.com/open-telemetry/semantic-conventions/blob/v1.41.0/docs/gen-ai/gen-ai-input-messages.json
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dspy_lambda.introspection import class_name

_MODALITIES = {"image_url": "image", "input_image": "image", "input_audio": "audio", "file": "document"}


class FreeText(str):
    """A text in which a program's fields are no longer visible."""

    __slots__ = ()


def free_texts(value: Any) -> Iterator[FreeText]:
    """Yield the free texts in plain JSON."""
    if isinstance(value, FreeText):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from free_texts(item)


def messages_of(value: Any, role: str) -> list[dict[str, Any]]:
    """Return messages as DSPy has them (OpenAI's form, or an LM's outputs) with roles and parts.

    Args:
        role: the role of a message that has none.
    """
    items = value if isinstance(value, list | tuple) else [value]
    return [_message(item, role) for item in items if item is not None]


def _message(item: Any, role: str) -> dict[str, Any]:
    if not isinstance(item, dict):
        return {"role": role, "parts": [_part(part) for part in _parts(item)]}
    given = item.get("role")
    parts = item["parts"] if isinstance(item.get("parts"), list) else _parts(item.get("content", item.get("text")))
    calls = item.get("tool_calls")
    found = [_part(part) for part in parts]
    found += [_tool_call(call) for call in calls] if isinstance(calls, list | tuple) else []
    message = {"role": given if isinstance(given, str) else role, "parts": found}
    reason = item.get("finish_reason")
    return message | ({"finish_reason": reason} if isinstance(reason, str) else {})


def _parts(content: Any) -> list[Any]:
    if content is None:
        return []
    return list(content) if isinstance(content, list | tuple) else [content]


def _part(part: Any) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "content": FreeText(part)}
    if not isinstance(part, dict):
        return {"type": class_name(type(part))}
    kind = part.get("type") if isinstance(part.get("type"), str) else "text"
    text = part.get("content", part.get("text"))
    if isinstance(text, str) and kind in ("text", "input_text", "output_text", "reasoning"):
        return {"type": "reasoning" if kind == "reasoning" else "text", "content": FreeText(text)}
    if kind in ("tool_call", "tool_call_response"):
        return {key: _free(item) for key, item in part.items()} | {"type": kind}
    return {"type": "blob", "modality": _MODALITIES.get(str(kind), str(kind)), **_media(part)}


def _media(part: dict[str, Any]) -> dict[str, Any]:
    """Return media type and size of a part's content, which is a URL or base64; never the content itself."""
    found: dict[str, Any] = {}
    for value in _texts(part, 3):
        if value.startswith("data:"):
            found["mime_type"] = value[5:].partition(",")[0].partition(";")[0][:100]
        if len(value) > found.get("bytes", 100):
            found["bytes"] = len(value.partition(",")[2] or value) * 3 // 4
    return found


def _texts(value: Any, levels: int) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict) and levels:
        return [text for item in value.values() for text in _texts(item, levels - 1)]
    return []


def _tool_call(call: Any) -> dict[str, Any]:
    function = _read(call, "function") or call
    identifier = _read(call, "id")
    about = {"type": "tool_call", "name": _read(function, "name"), "arguments": _free(_read(function, "arguments"))}
    return about | ({"id": identifier} if isinstance(identifier, str) else {})


def _read(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else getattr(value, name, None)


def _free(value: Any) -> Any:
    return FreeText(value) if isinstance(value, str) else value
