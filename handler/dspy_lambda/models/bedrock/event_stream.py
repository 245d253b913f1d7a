"""Decode `application/vnd.amazon.eventstream`, in which Bedrock streams its answers.

https://docs.aws.amazon.com/AmazonS3/latest/API/RESTSelectObjectAppendix.html and botocore's eventstream.py, which the
tests compare with.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from zlib import crc32

_PRELUDE = 12  # bytes: total length, headers' length, checksum of both
_LEAST = _PRELUDE + 4
_MOST = 24 * 1024 * 1024  # botocore's limit of a message
_MOST_HEADERS = 128 * 1024
# By type: true, false, byte, short, int, long, bytes, string, timestamp, UUID.
_FIXED = {0: (0, ""), 1: (0, ""), 2: (1, ">b"), 3: (2, ">h"), 4: (4, ">i"), 5: (8, ">q"), 8: (8, ">q"), 9: (16, "16s")}


class EventStreamError(Exception):
    """The bytes are not an event stream, are damaged, or end early."""


@dataclass(frozen=True)
class EventMessage:
    """One message; header values of other types than text are kept as Python values."""

    headers: dict[str, Any]
    payload: bytes


class EventStreamDecoder:
    """Splits received bytes into messages."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[EventMessage]:
        """Yield the messages that these bytes complete.

        Raises:
            EventStreamError: they are not an event stream, or a checksum is wrong.
        """
        self._rest += data
        while len(self._rest) >= _PRELUDE:
            total, headers, checksum = struct.unpack_from(">III", self._rest)
            if crc32(self._rest[:8]) != checksum:
                raise EventStreamError("the checksum of a message's lengths is wrong")
            if not _LEAST + headers <= total <= _MOST or headers > _MOST_HEADERS:
                raise EventStreamError(f"a message has impossible lengths: {total:,} and {headers:,} bytes")
            if len(self._rest) < total:
                return
            message = bytes(self._rest[:total])
            del self._rest[:total]
            yield _decode(message, headers)

    def close(self) -> None:
        """Check that no part of a message is left.

        Raises:
            EventStreamError: the stream ended within a message.
        """
        if self._rest:
            raise EventStreamError(f"the stream ended within a message, after {len(self._rest):,} of its bytes")


def _decode(message: bytes, headers: int) -> EventMessage:
    if crc32(message[:-4]) != int.from_bytes(message[-4:], "big"):
        raise EventStreamError("the checksum of a message is wrong")
    end = _PRELUDE + headers
    try:
        return EventMessage(dict(_headers(message[_PRELUDE:end])), message[end:-4])
    except (IndexError, KeyError, struct.error, UnicodeDecodeError):
        raise EventStreamError("a message's headers cannot be read") from None


def _headers(data: bytes) -> Iterator[tuple[str, Any]]:
    place = 0
    while place < len(data):
        name_end = place + 1 + data[place]
        name = data[place + 1 : name_end].decode()
        kind, place = data[name_end], name_end + 1
        if kind in (6, 7):
            (length,) = struct.unpack_from(">H", data, place)
            value = data[place + 2 : place + 2 + length]
            if len(value) != length:
                raise IndexError
            place += 2 + length
            yield name, value.decode() if kind == 7 else value
        else:
            length, form = _FIXED[kind]
            yield name, struct.unpack_from(form, data, place)[0] if form else kind == 0
            place += length
