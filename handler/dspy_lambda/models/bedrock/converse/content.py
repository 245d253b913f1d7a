"""The parts of messages as Converse's content blocks."""

from __future__ import annotations

import re
from typing import Any

from dspy._vendor.lm15.providers.common import data_part_text, media_base64
from dspy.lm15 import (
    AudioPart,
    DataPart,
    DocumentPart,
    ImagePart,
    Message,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolResultPart,
    UnsupportedFeatureError,
    VideoPart,
)

Block = dict[str, Any]
PROVIDER = "bedrock"
SIGNATURE, REDACTED = "thinking_signature", "redacted_thinking"  # kinds of state that belongs to reasoning

# https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ContentBlock.html
_IMAGES = {"image/png": "png", "image/jpeg": "jpeg", "image/jpg": "jpeg", "image/gif": "gif", "image/webp": "webp"}
_DOCUMENTS = {
    "application/pdf": "pdf",
    "text/csv": "csv",
    "application/msword": "doc",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.ms-excel": "xls",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
    "text/html": "html",
    "text/plain": "txt",
    "text/markdown": "md",
}
_AUDIO = {"audio/mpeg": "mp3", "audio/x-wav": "wav", "audio/wave": "wav", "audio/x-flac": "flac"}
_VIDEO = {"video/quicktime": "mov", "video/x-matroska": "mkv", "video/3gpp": "three_gp", "video/x-flv": "flv"}


def messages_of(messages: tuple[Message, ...]) -> list[Block]:
    """Return Converse's messages: turns alternate, blank texts are left out, and tool results belong to the user."""
    turns: list[Block] = []
    documents = _Names()
    for message in messages:
        role = "assistant" if message.role == "assistant" else "user"
        blocks = [block for part in message.parts for block in _blocks(part, documents)]
        if not blocks:
            continue
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        else:
            turns.append({"role": role, "content": blocks})
    return turns


class _Names:
    """Names for documents, which Converse requires and which must differ within a request."""

    def __init__(self) -> None:
        self._count = 0

    def next(self) -> str:
        self._count += 1
        return f"document {self._count}"


def _blocks(part: Any, documents: _Names) -> list[Block]:
    if isinstance(part, TextPart):
        return [{"text": part.text}] if part.text.strip() else []
    if isinstance(part, DataPart):
        return [{"text": data_part_text(part)}]
    if isinstance(part, ToolCallPart):
        return [{"toolUse": {"toolUseId": part.id, "name": part.name, "input": part.input}}]
    if isinstance(part, ToolResultPart):
        content = [block for item in part.content for block in _blocks(item, documents)] or [{"text": "(no content)"}]
        result = {"toolUseId": part.id, "content": content}
        return [{"toolResult": result | ({"status": "error"} if part.is_error else {})}]
    if isinstance(part, ThinkingPart):
        return _reasoning(part)
    if isinstance(part, ImagePart):
        return [{"image": _media(part, _IMAGES)}]
    if isinstance(part, DocumentPart):
        return [{"document": {"name": documents.next(), **_media(part, _DOCUMENTS)}}]
    if isinstance(part, AudioPart):
        return [{"audio": _media(part, _AUDIO)}]
    if isinstance(part, VideoPart):
        return [{"video": _media(part, _VIDEO)}]
    text = getattr(part, "text", None)
    if not isinstance(text, str):
        raise _unsupported(f"a {part.type} part", "Converse takes text, images, documents, audio, video and tools")
    return [{"text": text}] if text.strip() else []


def _reasoning(part: ThinkingPart) -> list[Block]:
    """Return reasoning that the model can check: it must come back as it was sent, or not at all."""
    for state in part.continuation:
        if state.provider == PROVIDER and state.kind == REDACTED:
            return [{"reasoningContent": {"redactedContent": state.data["data"]}}]
        if state.provider == PROVIDER and state.kind == SIGNATURE:
            text = {"text": part.text, "signature": state.data["signature"]}
            return [{"reasoningContent": {"reasoningText": text}}]
    return []


def _media(part: Any, formats: dict[str, str]) -> Block:
    kind, _, subtype = part.media_type.partition("/")
    form = formats.get(part.media_type, subtype if formats in (_AUDIO, _VIDEO) else None)
    if form is None:
        raise _unsupported(f"{part.media_type} as {part.type}", f"Converse takes {', '.join(sorted(set(formats)))}")
    if part.url is not None:
        if not re.match(r"s3://[^/]+/.", part.url):
            raise _unsupported(f"a URL as {kind}", "Converse takes bytes and s3:// URLs: download it in the program")
        return {"format": form, "source": {"s3Location": {"uri": part.url}}}
    if part.file_id is not None:
        raise _unsupported(f"an uploaded file as {kind}", "Converse takes bytes and s3:// URLs")
    return {"format": form, "source": {"bytes": media_base64(part)}}


def _unsupported(what: str, reason: str) -> UnsupportedFeatureError:
    return UnsupportedFeatureError(f"{PROVIDER}: {what} cannot be sent: {reason}.", provider=PROVIDER)
