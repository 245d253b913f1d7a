"""Limits on how much a provider may send and how long it may take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ProviderBounds:
    """Limits on one provider request.

    Attributes:
        answer_bytes: the size of an answer's body, as sent and as decompressed. An answer of 128,000 tokens has
            0.5 MB, one of 16,000 tokens with 20 `top_logprobs` each about 30 MB, and an image in base64 a few MB.
        error_bytes: the size of an error's body. lm15 keeps 500 characters of it.
        total_per_timeout: without a deadline, the total time of an answer as a multiple of the LM's `timeout`: once
            for its first byte, and once for the rest.
        late_seconds: how long after its call's deadline an answer may still arrive; it is then counted as late. It is
            not zero so that calls are settled and tasks canceled first, even for a batch of 1,000 records (measured:
            0.2 s of a whole core). Otherwise a hundred unwinding threads would compete for the interpreter's lock
            and take more of the core than the answer.
    """

    answer_bytes: int = 32 * 2**20
    error_bytes: int = 2**20
    total_per_timeout: float = 2.0
    late_seconds: float = 0.5


_bounds = ProviderBounds()


def set_bounds(bounds: ProviderBounds) -> None:
    """Use these bounds from now on."""
    global _bounds
    _bounds = bounds


def current() -> ProviderBounds:
    """Return the bounds in use."""
    return _bounds
