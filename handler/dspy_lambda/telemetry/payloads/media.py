"""Images, audio, files and conversation histories: only their media type and size are written."""

from __future__ import annotations

import re
from typing import Any

from dspy import Audio, File, History, Image

# RFC 2397: data:[<media type>][;name=value][;base64],<data>
_DATA_URI = re.compile(r"data:([\w/+.-]{0,100})(?:;[\w=.-]{1,100}){0,5}?;base64,([A-Za-z0-9+/=_%-]*)")
_MIN_RUN = 256
_RUN = re.compile(rf"(?<![A-Za-z0-9+/_-])[A-Za-z0-9+/_-]{{{_MIN_RUN},}}={{0,2}}")


def media_of(value: Any, is_nested: bool) -> dict[str, Any] | None:
    """Return what is shown of an image, audio, a file or a history; None for anything else."""
    if isinstance(value, Image):
        return _shown(value.url)
    if isinstance(value, File):
        return _shown(value.file_data or "") | ({"file_id": value.file_id} if value.file_id else {})
    if isinstance(value, Audio):
        return {"media_type": f"audio/{value.audio_format}"[:100], "bytes": _decoded(len(value.data))}
    if isinstance(value, History):
        return _history(value.messages)
    if isinstance(value, dict) and is_nested:
        return _written(value)
    return None


def _written(value: dict[Any, Any]) -> dict[str, Any] | None:
    """Return what is shown of audio or a history as JSON, as callers send it."""
    if value.keys() == {"messages"} and isinstance(value["messages"], list):
        return _history(value["messages"])
    if value.keys() >= {"data"} and value.keys() & {"audio_format", "format"} and isinstance(value["data"], str):
        kind = value.get("audio_format") or value.get("format")
        return {"media_type": f"audio/{kind}"[:100], "bytes": _decoded(len(value["data"]))}
    return None


def _shown(address: str) -> dict[str, Any]:
    """Return what is shown of a URL: only of a data URI, the content is within the value."""
    if not address.startswith("data:"):
        return {"url": address} if address else {}
    head, _, data = address.partition(",")
    return {"media_type": head[5:].partition(";")[0][:100], "bytes": _decoded(len(data))}


def _history(messages: list[Any]) -> dict[str, Any]:
    return {"messages": len(messages), "bytes": sum(_size(message) for message in messages)}


def _size(message: Any) -> int:
    texts = [item for item in message.values() if isinstance(item, str)] if isinstance(message, dict) else []
    return sum(len(text.encode(errors="replace")) for text in texts)


def _decoded(length: int) -> int:
    """Return about how many bytes base64 of this length has."""
    return length * 3 // 4


def without_uris(text: str) -> str:
    """Replace data URIs by their media type and size."""
    if ";base64," not in text:
        return text
    return _DATA_URI.sub(lambda uri: f"({uri[1] or 'data'}, {_decoded(len(uri[2])):,} bytes)", text)


def without_base64(text: str) -> str:
    """Replace long runs of base64 by their size."""
    if len(text) < _MIN_RUN or max(map(len, text.split()), default=0) < _MIN_RUN:
        return text
    return _RUN.sub(lambda run: f"(base64, {_decoded(len(run[0])):,} bytes)", text)
