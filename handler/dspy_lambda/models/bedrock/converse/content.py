"""The parts of messages as Converse's content blocks."""

from __future__ import annotations

import re
import zlib
from typing import Any

from dspy.lm15 import (
    AudioPart,
    CitationPart,
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

from dspy_lambda.dspy_patches.lm15 import data_part_text, media_base64

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
_AUDIO = {
    **{f"audio/{name}": name for name in ("mp3", "opus", "wav", "aac", "flac", "mp4", "ogg", "x-aac", "m4a", "webm")},
    "audio/mpeg": "mp3",
    "audio/x-wav": "wav",
    "audio/wave": "wav",
    "audio/x-flac": "flac",
    "audio/x-m4a": "m4a",
    "audio/pcm": "pcm",
}
_VIDEO = {
    **{f"video/{name}": name for name in ("mp4", "webm", "mpeg")},
    "video/quicktime": "mov",
    "video/x-matroska": "mkv",
    "video/3gpp": "three_gp",
    "video/x-flv": "flv",
    "video/x-ms-wmv": "wmv",
}
_FORMATS = {ImagePart: _IMAGES, DocumentPart: _DOCUMENTS, AudioPart: _AUDIO, VideoPart: _VIDEO}
_S3 = re.compile(r"s3://[a-z0-9][-.a-z0-9]{1,61}[a-z0-9](/.*)?")
_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_TOOL_ID = re.compile(r"[a-zA-Z0-9_.:-]{1,64}")
_NO_TEXT = {"text": "(no text)"}  # where Converse requires one, and refuses a blank one


def messages_of(messages: tuple[Message, ...], point: Block | None = None, point_after: int = 0) -> list[Block]:
    """Return Converse's messages: the user begins, turns alternate, and tool results belong to the user.

    Blank texts are left out: Converse refuses them.

    Args:
        point: a cache point to put after the message `point_after`.
    """
    turns: list[Block] = []
    documents = _Names()
    for index, message in enumerate(messages):
        role = "assistant" if message.role == "assistant" else "user"
        blocks = [block for part in message.parts for block in _blocks(part, documents)]
        if not turns and (role == "assistant" or not blocks):
            turns.append({"role": "user", "content": [_NO_TEXT]})
        if blocks and turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        elif blocks:
            turns.append({"role": role, "content": blocks})
        if point is not None and index == point_after:
            turns[-1]["content"].append(point)
    for turn in turns:
        # https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Message.html
        if any("document" in block for block in turn["content"]) and not any(
            "text" in block for block in turn["content"]
        ):
            turn["content"].append(_NO_TEXT)
    return turns


def checked_tool_name(name: str) -> str:
    """Return a tool's name.

    Raises:
        UnsupportedFeatureError: Converse would refuse it.
    """
    if not _TOOL_NAME.fullmatch(name):
        raise _unsupported(f"the tool name {name!r}", "Converse takes 1 to 64 letters, digits, _ and -: rename it")
    return name


def _tool_id(name: str) -> str:
    """Return the id of a tool call; another provider's, from before a fallback, may be one that Converse refuses."""
    return name if _TOOL_ID.fullmatch(name) else f"call-{zlib.crc32(name.encode()):08x}"


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
        use = {"toolUseId": _tool_id(part.id), "name": checked_tool_name(part.name), "input": part.input}
        return [{"toolUse": use}]
    if isinstance(part, ToolResultPart):
        if any(isinstance(item, AudioPart) for item in part.content):
            raise _unsupported("audio in a tool's result", "Converse takes text, images, documents and video there")
        content = [block for item in part.content for block in _blocks(item, documents)] or [_NO_TEXT]
        result = {"toolUseId": _tool_id(part.id), "content": content}
        return [{"toolResult": result | ({"status": "error"} if part.is_error else {})}]
    if isinstance(part, ThinkingPart):
        return _reasoning(part)
    if isinstance(part, DocumentPart):
        return [{"document": {"name": documents.next(), **_media(part)}}]
    if isinstance(part, (ImagePart, AudioPart, VideoPart)):
        return [{part.type: _media(part)}]
    if isinstance(part, CitationPart):
        return []  # names the source of a text that is sent itself
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


def _media(part: Any) -> Block:
    formats = _FORMATS[type(part)]
    form = formats.get(part.media_type.partition(";")[0].strip().lower())
    if form is None:
        raise _unsupported(f"{part.media_type} as {part.type}", f"Converse takes {', '.join(sorted(formats))}")
    if part.url is not None:
        if not _S3.fullmatch(part.url):
            reason = "Converse takes bytes and s3:// URLs: download it in the program"
            raise _unsupported(f"a URL as {part.type}", reason)
        return {"format": form, "source": {"s3Location": {"uri": part.url}}}
    if part.file_id is not None:
        raise _unsupported(f"an uploaded file as {part.type}", "Converse takes bytes and s3:// URLs")
    return {"format": form, "source": {"bytes": media_base64(part)}}


def _unsupported(what: str, reason: str) -> UnsupportedFeatureError:
    return UnsupportedFeatureError(f"{PROVIDER}: {what} cannot be sent: {reason}.", provider=PROVIDER)
