"""Bounds on a model's provider: how much it may send, how long it may take, and no request after the deadline.

lm15, DSPy's own HTTP client, bounds the wait for each byte and the size of the headers, and nothing else: one byte a
second is read for ever, and a body of any size, unpacked from gzip or deflate where it comes so, is read into memory.
The functions in here take one of DSPy's each and return it with a bound; `dspy_patches.bound_provider_calls` puts them
in place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from dspy_lambda.provider_bounds import attempts, sizes, times
from dspy_lambda.provider_bounds.bounds import ProviderBounds, use

__all__ = ["PATCHES", "Patch", "ProviderBounds", "use"]


class Patch(NamedTuple):
    """One function of DSPy's, with the parameters it must have, and what takes its place."""

    module: str
    name: str
    parameters: str
    wrap: Callable[[Callable[..., Any]], Callable[..., Any]]


_HTTP = "dspy._vendor.lm15.transports"
_SEND = "self conn request parsed proxy write_timeout"
_ATTEMPT = "lm call backend request provider state results"
_EMBED = "model batch_inputs caching kwargs"
# Each row is put in place as a whole, or not at all.
PATCHES = (
    (
        Patch(f"{_HTTP}._http11", "ResponseHeadParser.feed", "self data", sizes.bound_head),
        Patch(f"{_HTTP}._http11", "ResponseHeadParser.body_decoder", "self request_method", sizes.bound_body),
    ),
    (
        Patch(f"{_HTTP}._sync", "StdlibTransport.stream", "self request", times.bound_stream),
        Patch(f"{_HTTP}._sync", "_ConnectionPool.acquire_slot", "self timeout", times.bound_slot),
        Patch(f"{_HTTP}._sync", "StdlibTransport._open", "self parsed proxy origin connect_timeout", times.bound_open),
        Patch(f"{_HTTP}._sync", "StdlibTransport._send_request", _SEND, times.bound_send),
        Patch(f"{_HTTP}._async", "StdlibAsyncTransport._send_request", _SEND, attempts.achecked),
        Patch(f"{_HTTP}._async", "_AsyncConnectionPool.discard", "self conn", times.abort_discarded),
    ),
    (
        Patch("dspy.clients.execution", "execute", "lm call", attempts.bound_call),
        Patch("dspy.clients.execution", "aexecute", "lm call", attempts.bound_call_on_loop),
        Patch("dspy.clients.execution", "_attempt", _ATTEMPT, attempts.check_attempt),
        Patch("dspy.clients.execution", "_aattempt", _ATTEMPT, attempts.bound_attempt_on_loop),
        Patch("dspy.clients.execution", "_delay", "exc attempt", attempts.bound_delay),
        Patch("dspy.clients.execution", "_account_failed_call", "lm results primary", attempts.count_failed),
        Patch("dspy.clients.errors", "wrap_error", "exc model provider", attempts.keep_call_errors),
        Patch("dspy.clients.engines.legacy_engine", "wrap_error", "exc model provider", attempts.keep_call_errors),
    ),
    (Patch("concurrent.futures.thread", "ThreadPoolExecutor.submit", "self fn args kwargs", attempts.carry_context),),
    (
        Patch("dspy.clients.embedding", "_compute_embeddings", _EMBED, attempts.checked),
        Patch("dspy.clients.embedding", "_acompute_embeddings", _EMBED, attempts.achecked),
    ),
)
