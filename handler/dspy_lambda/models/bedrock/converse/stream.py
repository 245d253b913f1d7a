"""Converse's streamed answers as DSPy's native stream events."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from dspy.lm15 import (
    CitationDelta,
    ContinuationDelta,
    ServerError,
    StreamDeltaEvent,
    StreamEndEvent,
    StreamStartEvent,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
    TransportError,
)

from dspy_lambda.models.bedrock.converse.answer import citation_of, finish_reason, usage_of
from dspy_lambda.models.bedrock.converse.content import PROVIDER, REDACTED, SIGNATURE
from dspy_lambda.models.bedrock.errors import bedrock_error
from dspy_lambda.models.bedrock.event_stream import EventMessage, EventStreamDecoder, EventStreamError


class ConverseStream:
    """Turns the bytes of one streamed answer into events."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._decoder = EventStreamDecoder()
        self._stop_reason: str | None = None
        self._is_done = False
        self._has_tool_call = False

    def feed(self, data: bytes) -> Iterator[Any]:
        """Yield the events that these bytes complete.

        Raises:
            ProviderError: Bedrock ended the stream with an error.
            TransportError: the bytes are not an event stream.
        """
        try:
            for message in self._decoder.feed(data):
                # A list: what the caller raises while it holds an event is no fault of the stream.
                yield from self._read(message)
        except EventStreamError as error:
            raise TransportError(f"{PROVIDER}: {error}", provider=PROVIDER) from None

    def close(self) -> Iterator[Any]:
        """Yield the last event if the stream had no usage.

        Raises:
            TransportError: the stream ended before its answer did.
        """
        try:
            self._decoder.close()
        except EventStreamError as error:
            raise TransportError(f"{PROVIDER}: {error}", provider=PROVIDER) from None
        if self._stop_reason is None:
            raise TransportError(f"{PROVIDER}: the stream ended before the answer did", provider=PROVIDER)
        if not self._is_done:
            yield self._end(None)

    def _read(self, message: EventMessage) -> list[Any]:
        try:
            return list(self._events(message.headers, json.loads(message.payload or b"{}")))
        except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
            raise ServerError(f"{PROVIDER}: an event of the stream cannot be read", provider=PROVIDER) from None

    def _events(self, headers: dict[str, Any], data: dict[str, Any]) -> Iterator[Any]:
        if headers.get(":message-type") in ("exception", "error"):
            kind = str(headers.get(":exception-type") or headers.get(":error-code") or "")
            text = str(data.get("message") or headers.get(":error-message") or "")
            raise bedrock_error(None, kind, text, model=self._model)
        event = headers.get(":event-type")
        if event == "messageStart":
            yield StreamStartEvent(model=self._model)
        elif event == "contentBlockStart":
            yield from self._start(data)
        elif event == "contentBlockDelta":
            yield from _deltas(data.get("delta") or {}, int(data.get("contentBlockIndex") or 0))
        elif event == "messageStop":
            self._stop_reason = str(data.get("stopReason") or "")
        elif event == "metadata":
            self._is_done = True
            yield self._end(data.get("usage"))

    def _start(self, data: dict[str, Any]) -> Iterator[Any]:
        use = (data.get("start") or {}).get("toolUse")
        if use:
            self._has_tool_call = True
            index = int(data.get("contentBlockIndex") or 0)
            yield StreamDeltaEvent(delta=ToolCallDelta("", part_index=index, id=use["toolUseId"], name=use["name"]))

    def _end(self, usage: Any) -> StreamEndEvent:
        reason = finish_reason(self._stop_reason or "", self._has_tool_call)
        return StreamEndEvent(
            finish_reason=reason, usage=usage_of(usage), provider_data={"stopReason": self._stop_reason}
        )


def _deltas(delta: dict[str, Any], index: int) -> Iterator[StreamDeltaEvent]:
    if isinstance(delta.get("text"), str):
        yield StreamDeltaEvent(delta=TextDelta(delta["text"], part_index=index))
    elif "toolUse" in delta:
        yield StreamDeltaEvent(delta=ToolCallDelta(str(delta["toolUse"].get("input") or ""), part_index=index))
    elif "reasoningContent" in delta:
        yield from _reasoning(delta["reasoningContent"], index)
    elif "citation" in delta and (found := citation_of(delta["citation"])):
        yield StreamDeltaEvent(delta=CitationDelta(**found, part_index=index))


def _reasoning(content: dict[str, Any], index: int) -> Iterator[StreamDeltaEvent]:
    if isinstance(content.get("text"), str):
        yield StreamDeltaEvent(delta=ThinkingDelta(content["text"], part_index=index))
    for name, kind, key in (("signature", SIGNATURE, "signature"), ("redactedContent", REDACTED, "data")):
        if content.get(name):
            if kind == REDACTED:
                yield StreamDeltaEvent(delta=ThinkingDelta("", part_index=index))
            state = ContinuationDelta(provider=PROVIDER, kind=kind, data={key: content[name]}, part_index=index)
            yield StreamDeltaEvent(delta=state)
