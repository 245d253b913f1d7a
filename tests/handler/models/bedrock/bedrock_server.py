"""A small server on the loopback interface that records requests and answers as Bedrock would."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from zlib import crc32

MARKED = "[[ ## answer ## ]]\nParis\n\n[[ ## completed ## ]]"


@dataclass(frozen=True)
class Sent:
    """One request as it was received."""

    url: str
    headers: dict[str, str]  # names in lower case
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Reply:
    """One answer; `chunks` are sent one by one."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    chunks: Iterable[bytes] | None = None


def converse(content: Any = MARKED, stop: str = "end_turn", **usage: int) -> Reply:
    """Return an answer of Converse; text stands for one block of it."""
    blocks = [{"text": content}] if isinstance(content, str) else content
    counts = {"inputTokens": 10, "outputTokens": 5, "totalTokens": 15} | usage
    answer = {
        "output": {"message": {"role": "assistant", "content": blocks}},
        "stopReason": stop,
        "usage": counts,
        "metrics": {"latencyMs": 3},
    }
    return Reply(json.dumps(answer).encode())


def chat(text: str = MARKED) -> Reply:
    message = {"role": "assistant", "content": text}
    answer = {
        "id": "1",
        "object": "chat.completion",
        "model": "m",
        "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
    }
    return Reply(json.dumps(answer).encode())


def anthropic(text: str = MARKED) -> Reply:
    answer = {
        "id": "1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 10, "output_tokens": 5},
    }
    return Reply(json.dumps(answer).encode())


def error(status: int, kind: str, message: str, **headers: str) -> Reply:
    found = {"x-amzn-ErrorType": f"{kind}:http://internal.amazon.com/coral/", "x-amzn-RequestId": "r-1"}
    return Reply(json.dumps({"message": message}).encode(), status, found | headers)


def frame(headers: dict[str, str], payload: bytes) -> bytes:
    """Encode one message of an event stream with text headers."""
    encoded = b"".join(
        bytes([len(name)]) + name.encode() + b"\7" + len(value.encode()).to_bytes(2, "big") + value.encode()
        for name, value in headers.items()
    )
    head = (16 + len(encoded) + len(payload)).to_bytes(4, "big") + len(encoded).to_bytes(4, "big")
    message = head + crc32(head).to_bytes(4, "big") + encoded + payload
    return message + crc32(message).to_bytes(4, "big")


def event(kind: str, content: Any) -> bytes:
    headers = {":event-type": kind, ":content-type": "application/json", ":message-type": "event"}
    return frame(headers, json.dumps(content).encode())


def exception(kind: str, message: str) -> bytes:
    headers = {":exception-type": kind, ":content-type": "application/json", ":message-type": "exception"}
    return frame(headers, json.dumps({"message": message}).encode())


def text_events(*texts: str, stop: str = "end_turn") -> list[bytes]:
    """Return the events of a streamed text answer."""
    deltas = [event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": text}}) for text in texts]
    usage = {"inputTokens": 10, "outputTokens": 5, "totalTokens": 15}
    return [
        event("messageStart", {"role": "assistant"}),
        *deltas,
        event("contentBlockStop", {"contentBlockIndex": 0}),
        event("messageStop", {"stopReason": stop}),
        event("metadata", {"usage": usage, "metrics": {"latencyMs": 3}}),
    ]


def chat_events() -> list[bytes]:
    delta = {"id": "1", "model": "m", "choices": [{"index": 0, "delta": {"content": MARKED}, "finish_reason": None}]}
    end = {"id": "1", "model": "m", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    return [f"data: {json.dumps(item)}\n\n".encode() for item in (delta, end)] + [b"data: [DONE]\n\n"]


def anthropic_events() -> list[bytes]:
    message = {"id": "1", "type": "message", "role": "assistant", "model": "m", "content": [], "usage": {}}
    events = [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": MARKED}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}},
        {"type": "message_stop"},
    ]
    return [f"event: {item['type']}\ndata: {json.dumps(item)}\n\n".encode() for item in events]


def streamed(events: Iterable[bytes], kind: str = "application/vnd.amazon.eventstream") -> Reply:
    return Reply(headers={"content-type": kind}, chunks=events)


def suitable(sent: Sent) -> Reply:
    """Answer each door in its own form."""
    if sent.url.endswith("/converse-stream"):
        return streamed(text_events(*MARKED.partition("Paris")))
    if sent.url.endswith("/converse"):
        return converse()
    if sent.json.get("stream"):
        return streamed(anthropic_events() if sent.url.endswith("/messages") else chat_events(), "text/event-stream")
    return anthropic() if sent.url.endswith("/messages") else chat()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


class BedrockServer:
    """Records requests in `sent`, and answers each with the next of `replies`, then with what suits the door."""

    def __init__(self) -> None:
        self.sent: list[Sent] = []
        self.replies: list[Reply] = []
        self.answer: Callable[[Sent], Reply] = suitable
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                sent = Sent(f"http://{self.headers['host']}{self.path}", headers, body)
                server.sent.append(sent)
                reply = server.replies.pop(0) if server.replies else server.answer(sent)
                self.send_response(reply.status)
                for name, value in ({"content-type": "application/json"} | reply.headers).items():
                    self.send_header(name, value)
                if reply.chunks is None:
                    self.send_header("content-length", str(len(reply.body)))
                    self.end_headers()
                    self.wfile.write(reply.body)
                    return
                self.send_header("transfer-encoding", "chunked")
                self.end_headers()
                try:
                    for chunk in reply.chunks:
                        self.wfile.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
                        self.wfile.flush()
                    self.wfile.write(b"0\r\n\r\n")
                except OSError:
                    self.close_connection = True  # the client has left

            def log_message(self, *_: Any) -> None:
                pass

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
