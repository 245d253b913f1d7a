"""Amazon's event stream: the binary frames in which Converse streams.

https://docs.aws.amazon.com/transcribe/latest/dg/event-stream.html
"""

from __future__ import annotations

import json
import struct
import zlib
from typing import Any

CONTENT_TYPE = "application/vnd.amazon.eventstream"
_STRING = 7  # the type of a header's value


def event(name: str, payload: dict[str, Any]) -> bytes:
    """Return an event's frame."""
    return frame({":event-type": name, ":content-type": "application/json", ":message-type": "event"}, payload)


def exception(name: str, payload: dict[str, Any]) -> bytes:
    """Return an exception's frame: the name of the stream's member, such as throttlingException."""
    headers = {":exception-type": name, ":content-type": "application/json", ":message-type": "exception"}
    return frame(headers, payload)


def frame(headers: dict[str, str], payload: dict[str, Any]) -> bytes:
    """Return a frame: prelude (total and headers' length) and its CRC, headers, payload, and the CRC of all of it."""
    head = b"".join(_header(name.encode(), value.encode()) for name, value in headers.items())
    body = json.dumps(payload, separators=(",", ":")).encode()
    prelude = struct.pack("!II", 12 + len(head) + len(body) + 4, len(head))
    message = prelude + struct.pack("!I", zlib.crc32(prelude)) + head + body
    return message + struct.pack("!I", zlib.crc32(message))


def corrupt(data: bytes) -> bytes:
    """Return a frame with a wrong checksum."""
    return data[:-1] + bytes([data[-1] ^ 0xFF])


def _header(name: bytes, value: bytes) -> bytes:
    return struct.pack("!B", len(name)) + name + struct.pack("!BH", _STRING, len(value)) + value
