"""Bounds on a model's provider: how much it may send, how long it may take, and no request after the deadline.

lm15, DSPy's HTTP client, limits only the wait for each byte and the size of the headers. It would read one byte a
second forever, and it reads a body of any size into memory, including one decompressed from gzip or deflate. Each
function here wraps one DSPy function with a bound; `dspy_patches` applies them.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from dspy_lambda.dspy_patches.insides import EXECUTION, HTTP
from dspy_lambda.dspy_patches.patch import Name, Patch, apply_patches
from dspy_lambda.provider_bounds import attempts, sizes, times
from dspy_lambda.provider_bounds.bounds import ProviderBounds, set_bounds

__all__ = ["PATCHES", "ProviderBounds", "bound_provider_calls", "scale_to_core_share", "set_bounds"]

_http11 = partial(Name, f"{HTTP}._http11")
_sync = partial(Name, f"{HTTP}._sync")
_async = partial(Name, f"{HTTP}._async")
_execution = partial(Name, EXECUTION)
_on_loop = partial(Name, EXECUTION, is_async=True)
_EXCEPTIONS = f"{HTTP}._exceptions"
_SEND = "self conn request parsed proxy write_timeout"
_ATTEMPT = "lm call backend request provider state results"
_EMBED = "model batch_inputs caching kwargs"
_ERROR = "exc model provider"

SIZES = Patch(
    "limits on answer sizes",
    "without it an answer of 1 MiB decompresses to 1 GiB of memory (measured; 64 MiB with it), and an endless answer "
    "fills all memory",
    (
        Name(_EXCEPTIONS, "ProtocolError"),
        _http11("ContentDecoder"),
        _http11("content_codings", "values"),
        _http11("ResponseHeadParser.headers_all", "self name"),
        _http11("ResponseHeadParser.__init__", attributes="_buf _max"),
        _http11("ResponseHeadParser.feed", "self data", wrap=sizes.bound_head),
        _http11("ResponseHeadParser.body_decoder", "self request_method", wrap=sizes.bound_body),
    ),
)
TIMES = Patch(
    "limits on total answer times",
    "without it a provider that sends one byte a second holds a thread and its slot until Lambda's timeout",
    (
        Name(_EXCEPTIONS, "TransportError"),
        _sync("StdlibTransport.__init__", attributes="_read_timeout"),
        _sync("StdlibTransport.stream", "self request", wrap=times.bound_stream),
        _sync("_ConnectionPool.acquire_slot", "self timeout", wrap=times.bound_slot),
        _sync("StdlibTransport._open", "self parsed proxy origin connect_timeout", wrap=times.bound_open),
        _sync("_SyncConnection.__init__", attributes="sock"),
        _sync("StdlibTransport._send_request", _SEND, wrap=times.bound_send),
        _async("StdlibAsyncTransport._send_request", _SEND, is_async=True, wrap=attempts.achecked),
        _async("_AsyncConnection.__init__", attributes="writer"),
        _async("_AsyncConnectionPool.discard", "self conn", is_async=True, wrap=times.abort_discarded),
    ),
)
ATTEMPTS = Patch(
    "limits on LM calls and their attempts",
    "prevents requests after the deadline, which are billed for nothing, and an hour of sleep for a Retry-After of "
    "3600; and enforces a model's limits",
    (
        _execution("execute", "lm call", wrap=attempts.bound_call),
        _on_loop("aexecute", "lm call", wrap=attempts.bound_call_on_loop),
        _execution("_attempt", _ATTEMPT, wrap=attempts.check_attempt),
        _on_loop("_aattempt", _ATTEMPT, wrap=attempts.bound_attempt_on_loop),
        _execution("_delay", "exc attempt", wrap=attempts.bound_delay),
        Name("dspy.clients.errors", "wrap_error", _ERROR, wrap=attempts.keep_call_errors),
    ),
)
FAILED_CALLS = Patch(
    "tokens of LM calls that failed in the end",
    "counts what was answered before the failure, which is billed and in no history",
    (
        _execution("_price_result", attributes="cost"),
        _execution("_account_failed_call", "lm results primary", attributes="usage", wrap=attempts.count_failed),
    ),
)
# A separate patch: DSPy's deprecation warnings announce that 3.5 removes this engine; the rest may stay.
LEGACY_ERRORS = Patch(
    "deadlines of LMs that define forward",
    "without it a missed deadline would count as a model failure and be retried",
    (Name("dspy.clients.engines.legacy_engine", "wrap_error", _ERROR, wrap=attempts.keep_call_errors),),
)
# Patches Python itself, so it depends on no DSPy name.
POOLS = Patch(
    "the call's context in thread pools",
    "without it work that a call submits to a pool, as dspy.Parallel does, has neither the call's LM nor its deadline",
    (
        Name(
            "concurrent.futures.thread", "ThreadPoolExecutor.submit", "self fn args kwargs", wrap=attempts.carry_context
        ),
    ),
)
EMBEDDINGS = Patch(
    "no embeddings after the deadline",
    "prevents requests that are billed for nothing",
    (
        Name("dspy.clients.embedding", "_compute_embeddings", _EMBED, wrap=attempts.checked),
        Name("dspy.clients.embedding", "_acompute_embeddings", _EMBED, is_async=True, wrap=attempts.achecked),
    ),
)
PATCHES = (SIZES, TIMES, ATTEMPTS, FAILED_CALLS, LEGACY_ERRORS, POOLS, EMBEDDINGS)


def scale_to_core_share(core_share: float) -> None:
    """Use the default bounds, scaled for a process with this share of a core."""
    defaults = ProviderBounds()
    set_bounds(replace(defaults, late_seconds=defaults.late_seconds / core_share))


def bound_provider_calls(bounds: ProviderBounds | None = None) -> dict[str, str]:
    """Bound the provider requests of every LM in this process: answer sizes, total times, no late request.

    Call it after importing DSPy and before the first LM call; call it again to change the bounds.

    Returns:
        The patches that were left out, each with the change in DSPy that prevented it.
    """
    set_bounds(bounds or ProviderBounds())
    return apply_patches(PATCHES)
