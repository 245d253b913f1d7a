"""Limits on the size of an answer, in lm15's HTTP response parser, which its sync and async clients share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dspy.utils.exceptions import LMProviderError

from dspy_lambda.dspy_patches.insides import is_packed_twice, most_of_head, protocol_error
from dspy_lambda.dspy_patches.patch import Function
from dspy_lambda.provider_bounds.bounds import current

# Deflate's best ratio is 1,032 to 1 (zlib.net/zlib_tech.html): a piece decompresses to about 4 MiB at most.
_PIECE_BYTES = 4096


class BoundedDecoder:
    """Wraps one of lm15's body decoders with a limit on the bytes as sent and as decompressed."""

    def __init__(self, decoder: Any, limit: int, status: int) -> None:
        self._decoder = decoder
        self._limit = limit
        self._status = status
        self._sent = self._unpacked = 0

    @property
    def complete(self) -> bool:
        done: bool = self._decoder.complete
        return done

    def feed(self, data: bytes) -> Iterator[bytes]:
        self._sent += len(data)
        self._check(self._sent)
        for start in range(0, len(data), _PIECE_BYTES):
            for chunk in self._decoder.feed(data[start : start + _PIECE_BYTES]):
                self._unpacked += len(chunk)
                self._check(self._unpacked)
                yield chunk
            if self.complete:
                return

    def eof(self) -> None:
        self._decoder.eof()

    def drain(self) -> bytes:
        tail: bytes = self._decoder.drain()
        self._check(self._unpacked + len(tail))
        return tail

    def _check(self, size: int) -> None:
        if size > self._limit:
            raise too_large(self._limit, self._status)


def too_large(limit: int, status: int) -> LMProviderError:
    """Return an error that DSPy does not retry: the next answer would be as large."""
    return LMProviderError(f"The provider's answer (HTTP {status}) exceeds {limit:,} bytes.", status=status)


def bound_head(feed: Function) -> Function:
    """Wrap `ResponseHeadParser.feed`: headers over lm15's 64 KiB are not a network failure, which would be retried."""

    def bounded(self: Any, data: bytes) -> None:
        try:
            feed(self, data)
        except protocol_error() as error:
            if (most := most_of_head(self)) is not None:
                raise LMProviderError(f"The provider's headers exceed {most:,} bytes.") from error
            raise

    return bounded


def bound_body(body_decoder: Function) -> Function:
    """Wrap `ResponseHeadParser.body_decoder`."""

    def bounded(self: Any, request_method: str) -> BoundedDecoder:
        decoder = body_decoder(self, request_method)
        limit = current().error_bytes if self.status >= 400 else current().answer_bytes
        length = self.header("content-length") or ""
        if length.isdecimal() and (len(length) > 15 or int(length) > limit):
            raise too_large(limit, self.status)
        # Compressed twice, a piece of 4 KiB decompresses to 4 GiB. lm15 does not ask for compression at all.
        if is_packed_twice(self, decoder):
            raise LMProviderError("The provider's answer is compressed more than once.", status=self.status)
        return BoundedDecoder(decoder, limit, self.status)

    return bounded
