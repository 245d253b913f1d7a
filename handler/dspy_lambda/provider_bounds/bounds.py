"""How much a provider may send, and how long it may take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ProviderBounds:
    """What a provider may send and take for one request.

    Attributes:
        answer_bytes: of an answer's body, as sent and as unpacked. A long answer of 128,000 tokens has 0.5 MB, one of
            16,000 tokens with 20 `top_logprobs` each about 30 MB, an image in base64 a few.
        error_bytes: of an error's body. lm15 keeps 500 characters of it.
        total_per_timeout: where there is no deadline, an answer may take so many times the LM's `timeout` in all: the
            longest wait for its first byte, and as long again for the rest.
        late_seconds: an answer that is under way at its call's deadline may take so much longer, and is counted as
            late. Not zero: whoever settles calls and cancels tasks at the deadline is to be first, with a batch of
            1,000 records, too (measured: 0.2 s of a whole core). A hundred threads that unwind meanwhile would all
            wake up for the interpreter's lock again and again, and take more of the core than the answer.
    """

    answer_bytes: int = 32 * 2**20
    error_bytes: int = 2**20
    total_per_timeout: float = 2.0
    late_seconds: float = 0.5


_bounds = ProviderBounds()


def use(bounds: ProviderBounds) -> None:
    """Take these bounds from now on."""
    global _bounds
    _bounds = bounds


def current() -> ProviderBounds:
    """The bounds in use."""
    return _bounds
