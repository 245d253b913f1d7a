"""What a wire format consists of, and server-sent events, in which most of them stream."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from dspy_lambda_infra.model_server.failures import Failure

Document = dict[str, Any]


def sse(data: Document | str) -> bytes:
    """Return one server-sent event."""
    if isinstance(data, str):
        return f"data: {data}\n\n".encode()
    name = f"event: {data['type']}\n" if isinstance(data.get("type"), str) else ""
    return f"{name}data: {json.dumps(data)}\n\n".encode()


def openai_error(failure: Failure) -> Document:
    """Return an error's body as OpenAI writes it."""
    return {"error": {"message": failure.message, "type": failure.code, "code": failure.code}}


def is_streaming(body: Document) -> bool:
    """Whether a request's body asks for a stream."""
    return bool(body.get("stream"))


def unstreamed(_: Document) -> Iterable[Document]:
    """Raise ValueError: of a wire that has no streams."""
    raise ValueError("this path does not stream")


@dataclass(frozen=True)
class Wire:
    """One format.

    Attributes:
        path: the route.
        read: converts a request to a chat completion request, or to one with `texts` to embed. Raises KeyError,
            TypeError or ValueError for a request that is not in this format.
        write: converts a chat completion to an answer in this format.
        events: converts it to a stream's events, one per word of the text.
        frame: encodes an event.
        error: the body of an error.
        stream_error: the event of an error in the middle of a stream.
        streams: whether a request, as it came, asks for a stream.
        service: which service a request must be signed for; "" if none must.
        native: whether errors are Bedrock's own, with their names in a header.
    """

    path: str
    read: Callable[[Document], Document]
    write: Callable[[Document], Document]
    events: Callable[[Document], Iterable[Any]] = unstreamed
    frame: Callable[[Any], bytes] = sse
    error: Callable[[Failure], Document] = openai_error
    stream_error: Callable[[Failure], Any] = openai_error
    streams: Callable[[Document], bool] = is_streaming
    stream_type: str = "text/event-stream"
    service: str = ""
    native: bool = False

    def stream(self, document: Document) -> list[bytes]:
        """Return a completion's frames."""
        return [self.frame(event) for event in self.events(document)]


def content(document: Document) -> str:
    """Return a completion's text, which is empty if it calls tools."""
    return str(document["choices"][0]["message"]["content"] or "")


def words(text: str) -> list[str]:
    """Split a text into its words, each with the space after it."""
    return [word for word in re.findall(r"\S*\s*", text) if word]


def reasoning(document: Document) -> str:
    """Return a completion's reasoning, empty if none was asked for."""
    return str(document["choices"][0]["message"].get("reasoning_content", ""))


def tool_calls(document: Document) -> list[Document]:
    """Return a completion's calls of tools: their id, name, and arguments as JSON."""
    calls = document["choices"][0]["message"].get("tool_calls", [])
    return [{"id": call["id"], **call["function"]} for call in calls]


def function(name: str, schema: Document) -> Document:
    """Return a tool as a chat completion request has it."""
    return {"type": "function", "function": {"name": name, "parameters": schema}}


def named(name: str) -> Document:
    """Return the choice of one tool as a chat completion request has it."""
    return {"type": "function", "function": {"name": name}}


def json_schema(schema: Document) -> Document:
    """Return the demand for a schema as a chat completion request has it."""
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
