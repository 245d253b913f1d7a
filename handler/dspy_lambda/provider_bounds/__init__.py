"""Bounds on a model's provider: how much it may send, how long it may take, and no request after the deadline.

lm15, DSPy's own HTTP client, bounds the wait for each byte and the size of the headers, and nothing else: one byte a
second is read for ever, and a body of any size, unpacked from gzip or deflate where it comes so, is read into memory.
The functions in here take one of DSPy's each and return it with a bound; `dspy_patches` puts them in place.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from dspy_lambda.dspy_patches.insides import EXECUTION, HTTP
from dspy_lambda.dspy_patches.patch import Name, Patch, put_all_in_place
from dspy_lambda.provider_bounds import attempts, sizes, times
from dspy_lambda.provider_bounds.bounds import ProviderBounds, use

__all__ = ["PATCHES", "ProviderBounds", "bound_provider_calls", "use", "use_share"]

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
    "bounds on answers' sizes",
    "an answer of 1 MiB unpacks to 1 GiB of memory (measured; 64 MiB with it), and one without an end to all there is",
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
    "bounds on answers' times in all",
    "a provider that sends a byte a second keeps a thread, and its slot, until Lambda's kill",
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
    "bounds on LM calls and their attempts",
    "requests after the deadline, which are paid for and answer nobody; an hour's sleep for a Retry-After of 3600; "
    "and a model's own limits",
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
    "what was answered until then is paid for, and in no history",
    (
        _execution("_price_result", attributes="cost"),
        _execution("_account_failed_call", "lm results primary", attributes="usage", wrap=attempts.count_failed),
    ),
)
# By itself: DSPy 3.5 is to come without this engine (its own deprecation warnings say so), and all else may stay.
LEGACY_ERRORS = Patch(
    "deadlines of LMs with a forward of their own",
    "a deadline would count as the model's failure there, and be retried",
    (Name("dspy.clients.engines.legacy_engine", "wrap_error", _ERROR, wrap=attempts.keep_call_errors),),
)
# Python's own, and so with no ground in DSPy.
POOLS = Patch(
    "the call's context in thread pools",
    "what a call hands to a pool, as dspy.Parallel does, would have neither its LM nor its deadline",
    (
        Name(
            "concurrent.futures.thread", "ThreadPoolExecutor.submit", "self fn args kwargs", wrap=attempts.carry_context
        ),
    ),
)
EMBEDDINGS = Patch(
    "no embeddings after the deadline",
    "requests that are paid for and answer nobody",
    (
        Name("dspy.clients.embedding", "_compute_embeddings", _EMBED, wrap=attempts.checked),
        Name("dspy.clients.embedding", "_acompute_embeddings", _EMBED, is_async=True, wrap=attempts.achecked),
    ),
)
PATCHES = (SIZES, TIMES, ATTEMPTS, FAILED_CALLS, LEGACY_ERRORS, POOLS, EMBEDDINGS)


def use_share(core_share: float) -> None:
    """Take the default bounds, for a process that has that share of a core."""
    defaults = ProviderBounds()
    use(replace(defaults, late_seconds=defaults.late_seconds / core_share))


def bound_provider_calls(bounds: ProviderBounds | None = None) -> dict[str, str]:
    """Bound what every LM of this process asks of its provider: answers' sizes, their time in all, no late request.

    Call it once DSPy is imported, before the first LM call; again to change the bounds.

    Returns:
        The patches that were left out, each with what DSPy has changed.
    """
    use(bounds or ProviderBounds())
    return put_all_in_place(PATCHES)
