"""Event streams, compared with botocore's reading of the same bytes."""

import itertools
import struct
from zlib import crc32

import pytest
from botocore.eventstream import ChecksumMismatch, EventStreamBuffer
from hypothesis import given
from hypothesis import strategies as st

from dspy_lambda.models.bedrock.event_stream import EventStreamDecoder, EventStreamError
from tests.handler.models.bedrock.bedrock_server import event, frame

# Encoders of header values by type; botocore reads the same ones.
VALUES = st.one_of(
    st.just(b"\0"),
    st.just(b"\1"),
    st.integers(-(2**7), 2**7 - 1).map(lambda value: b"\2" + struct.pack(">b", value)),
    st.integers(-(2**15), 2**15 - 1).map(lambda value: b"\3" + struct.pack(">h", value)),
    st.integers(-(2**31), 2**31 - 1).map(lambda value: b"\4" + struct.pack(">i", value)),
    st.integers(-(2**63), 2**63 - 1).map(lambda value: b"\5" + struct.pack(">q", value)),
    st.binary(max_size=20).map(lambda value: b"\6" + struct.pack(">H", len(value)) + value),
    st.text(max_size=20).map(lambda text: b"\7" + struct.pack(">H", len(text.encode())) + text.encode()),
    st.integers(0, 2**62).map(lambda value: b"\x08" + struct.pack(">q", value)),
    st.binary(min_size=16, max_size=16).map(lambda value: b"\x09" + value),
)
NAMES = st.text(min_size=1, max_size=10).filter(lambda name: len(name.encode()) < 256)
HEADERS = st.dictionaries(NAMES, VALUES, max_size=4)


def message(headers, payload):
    encoded = b"".join(bytes([len(name.encode())]) + name.encode() + value for name, value in headers.items())
    head = struct.pack(">II", 16 + len(encoded) + len(payload), len(encoded))
    whole = head + struct.pack(">I", crc32(head)) + encoded + payload
    return whole + struct.pack(">I", crc32(whole))


def cut(data, places):
    ends = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in itertools.pairwise(ends)]


def ours(chunks):
    decoder = EventStreamDecoder()
    found = [(item.headers, item.payload) for chunk in chunks for item in decoder.feed(chunk)]
    decoder.close()
    return found


def theirs(chunks):
    buffer, found = EventStreamBuffer(), []
    for chunk in chunks:
        buffer.add_data(chunk)
        found += [(item.headers, item.payload) for item in buffer]
    return found


@given(st.lists(st.tuples(HEADERS, st.binary(max_size=50)), max_size=4), st.lists(st.integers(0, 10**6), max_size=8))
def test_any_chunking_is_read_as_botocore_reads_it(messages, places):
    chunks = cut(b"".join(message(*item) for item in messages), places)
    assert ours(chunks) == theirs(chunks)
    assert len(ours(chunks)) == len(messages)


@given(st.integers(0, 10**6), st.integers(1, 255))
def test_a_damaged_byte_is_noticed_as_botocore_notices_it(place, change):
    data = bytearray(event("metadata", {"usage": {}}))
    data[place % len(data)] ^= change
    with pytest.raises(EventStreamError):
        ours([bytes(data)])
    with pytest.raises(ChecksumMismatch):
        theirs([bytes(data)])


@given(st.integers(1, 10**6))
def test_a_stream_that_ends_within_a_message_is_an_error(place):
    whole = event("messageStart", {"role": "assistant"})
    with pytest.raises(EventStreamError, match="ended within a message"):
        ours([whole + whole[: 1 + place % (len(whole) - 1)]])


@pytest.mark.parametrize(
    "lengths", [(15, 0), (16, 1), (2**31, 0), (24 * 2**20 + 1, 0), (200_000, 128 * 1024 + 1)], ids=str
)
def test_impossible_lengths_are_refused_before_anything_is_kept(lengths):
    head = struct.pack(">II", *lengths)
    with pytest.raises(EventStreamError, match="impossible lengths"):
        list(EventStreamDecoder().feed(head + struct.pack(">I", crc32(head))))


@pytest.mark.parametrize("text", [b"<html>Bad gateway</html>", b'{"message": "no"}', b"data: {}\n\ndata: {}\n\n"])
def test_another_format_is_not_an_event_stream(text):
    with pytest.raises(EventStreamError):
        ours([text])


@pytest.mark.parametrize("headers", [b"\1a\x0a", b"\1a\7\0\x05ab", b"\x09ab", b"\1a\7\0\1\xff", b"\1a\4\0"])
def test_headers_that_cannot_be_read_are_an_error(headers):
    head = struct.pack(">II", 16 + len(headers), len(headers))
    whole = head + struct.pack(">I", crc32(head)) + headers
    with pytest.raises(EventStreamError, match="headers cannot be read"):
        ours([whole + struct.pack(">I", crc32(whole))])


def test_an_empty_stream_has_no_messages():
    assert ours([]) == ours([b"", b""]) == []
    assert ours([frame({}, b"")]) == [({}, b"")]
