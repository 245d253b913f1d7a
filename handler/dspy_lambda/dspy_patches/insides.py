"""What is read of DSPy's internals, and the names that each reading depends on.

Imported by modules that must not load DSPy, so functions import DSPy themselves.
"""

from __future__ import annotations

import functools
import importlib
from contextlib import AbstractContextManager, nullcontext
from types import SimpleNamespace, TracebackType
from typing import TYPE_CHECKING, Any

from dspy_lambda.dspy_patches.patch import Name, Patch, apply_patch
from dspy_lambda.models.bedrock.doors import PROVIDERS, route

if TYPE_CHECKING:
    import dspy

HTTP = "dspy._vendor.lm15.transports"
PARALLELIZER = "dspy.utils.parallelizer"
EXECUTION = "dspy.clients.execution"
LM15_ENGINE = "dspy.clients.engines.lm15_engine"
METADATA = "dspy.clients.model_metadata"
_ASYNCIFY = "dspy.utils.asyncify"
_SETTINGS = "dspy.dsp.utils.settings"
USAGE_SETTING = "dspy_lambda_usage"
PREPARE = "lm prompt messages kwargs asynchronous direct"

ENGINES = Patch(
    "the engine behind an LM",
    "DSPY_LAMBDA_PRECONNECT: no caller waits for the TLS handshake (16-18 ms of CPU for the pool, DSPy 3.4.1); and "
    "`build` leaves out LiteLLM, 111 MB of an artifact, if no LM needs it",
    (
        Name(EXECUTION, "prepare", PREPARE),
        Name(EXECUTION, "_engine", "lm call asynchronous"),
        Name(LM15_ENGINE, "_Routing._target", "self request streaming"),
        Name("dspy.clients.engines.litellm_engine", "LiteLLMEngine"),
    ),
)
PRICES = Patch(
    "whether a model has a price",
    "a warning if a spend alarm would see no costs; nothing at run time",
    (
        Name("dspy._vendor.lm15.errors", "LM15Error"),
        Name("dspy.clients.capabilities", "resolve", "lm"),
        Name(METADATA, "_load", ""),
        Name(METADATA, "model_info", "provider model namespaces"),
        Name(METADATA, "rate", "info key"),
    ),
)
PARALLEL_REASONS = Patch(
    "the reasons of dspy.Parallel",
    "its bare Exception has no cause; without this, an outage counts as a program error, which is not retried",
    (Name(PARALLELIZER, "ParallelExecutor"),),
)
ASYNCIFY_SLOTS = Patch(
    "free slots of dspy.asyncify",
    "abandoned calls keep its 8 slots, and all later calls would wait for them",
    (Name(_ASYNCIFY, "_limiter"), Name(_ASYNCIFY, "get_limiter", "")),
)
UNDEFINED_TYPES = Patch(
    "fields without a type",
    "DSPy declares them as str but accepts anything; without this, other types are answered with 422",
    (Name("dspy.utils.constants", "IS_TYPE_UNDEFINED"),),
)


def _try_usage_setting() -> None:
    import dspy

    with dspy.settings.context(**{USAGE_SETTING: ENGINES}):
        if dspy.settings.get(USAGE_SETTING) is not ENGINES:
            raise AttributeError("dspy.settings does not keep additional settings")


OWN_SETTING = Patch(
    "an additional setting in dspy.settings",
    "counts tokens and cost of LM calls in threads that DSPy starts without the context",
    (
        Name(_SETTINGS, "Settings.configure", "self kwargs"),
        Name(_SETTINGS, "Settings.context", "self kwargs"),
        Name(_SETTINGS, "Settings.get", "self key default"),
    ),
    _try_usage_setting,
)
STREAM_PROGRESS = Patch(
    "whether a call has streamed a part of its answer",
    "falls back to another model before the first chunk; without it, streaming calls do not fall back",
    (Name("dspy.clients.call_context", "adapter_fallback_scope", ""),),
)
ADAPTER_MESSAGES = Patch(
    "the messages of an adapter for another model",
    "without it DSPy warns, at the first fallback of a process, that a program passes such messages itself",
    (Name("dspy.clients._deprecation", "adapter_message_call", "lm messages"),),
)
READINGS = (
    ENGINES,
    PRICES,
    PARALLEL_REASONS,
    ASYNCIFY_SLOTS,
    UNDEFINED_TYPES,
    OWN_SETTING,
    STREAM_PROGRESS,
    ADAPTER_MESSAGES,
)


def native_provider(lm: dspy.LM, *, asynchronous: bool) -> Any:
    """Return the native provider of an LM, with the connection pool that the LM's calls will use.

    Raises:
        LookupError: This DSPy version does not reveal it.
    """
    if reason := apply_patch(ENGINES):
        raise LookupError(reason)
    engine, request = _engine_of(lm, asynchronous)
    provider, _ = engine._target(request)
    return provider


def bare_request(provider: Any) -> Any:
    """Return an unsigned GET request for a native provider's address, which only opens a connection."""
    from dspy._vendor.lm15.transports import TransportRequest

    return TransportRequest("GET", provider.base_url)


def uses_litellm(lm: dspy.LM) -> bool:
    """Whether a plain chat call of this LM would go through LiteLLM, according to DSPy's own backend selection.

    True if that is unknown: an artifact with LiteLLM is larger, but one without it may fail.

    Raises:
        ValueError, TypeError: No call of this LM can succeed.
    """
    if apply_patch(ENGINES):
        return True
    from dspy.clients.engines.litellm_engine import LiteLLMEngine

    try:
        engine, _ = _engine_of(lm, asynchronous=False)
    except LookupError:
        return True
    return isinstance(engine, LiteLLMEngine)


def _engine_of(lm: dspy.LM, asynchronous: bool) -> tuple[Any, Any]:
    from dspy.clients.execution import _engine, prepare

    call = prepare(lm, None, [{"role": "user", "content": "?"}], {}, asynchronous=asynchronous)
    found = _engine(lm, call, asynchronous)
    if not isinstance(found, tuple) or len(found) != 3:
        raise LookupError(f"{EXECUTION}._engine returns no (engine, request, provider)")
    return found[:2]


# Under which names LiteLLM's price map keeps a provider's models.
_PRICED_AS = ("{}", "{}_converse", "{}_chat", "{}-language-models")


def has_price(lm: dspy.LM, region: str | None = None) -> bool:
    """Whether DSPy's price map has token prices for an LM; without them `cost_usd` is null.

    True if that is unknown.

    Args:
        region: where a model on Bedrock is called; None for its price in most Regions.
    """
    if apply_patch(PRICES):
        return True
    from dspy.clients.model_metadata import rate

    info = price_info(lm, region)
    return all(rate(info, f"{kind}_cost_per_token") is not None for kind in ("input", "output"))


def price_info(lm: dspy.LM, region: str | None) -> dict[str, Any]:
    """Return an LM's entry in DSPy's price map; empty if it has none, or if that is unknown."""
    if apply_patch(PRICES):
        return {}
    from dspy._vendor.lm15.errors import LM15Error
    from dspy.clients.capabilities import resolve
    from dspy.clients.model_metadata import model_info

    if (found := route(lm.model)) is not None:
        return bedrock_info(found.provider, found.model_id, region)
    try:
        resolved = resolve(lm)
        info: dict[str, Any] = model_info(resolved.provider, resolved.model)
    except LM15Error:  # a provider that only LiteLLM knows
        provider, _, model = lm.model.partition("/")
        info = model_info(provider, model, namespaces=tuple(name.format(provider) for name in _PRICED_AS))
    return info


@functools.lru_cache(maxsize=256)
def bedrock_info(provider: str, model: str, region: str | None) -> dict[str, Any]:
    """Return a Bedrock model's entry in DSPy's price map, which callers do not modify; empty if it has none."""
    from dspy.clients.model_metadata import _load

    from dspy_lambda.models.bedrock.prices import find_price

    return find_price(_load(), provider, model, region)


def key_variable(lm: dspy.LM) -> str | None:
    """Return the variable from which an LM takes its key; None if it needs none, has one, or that is unknown."""
    if lm.kwargs.get("api_key") or apply_patch(PRICES):
        return None
    from dspy._vendor.lm15.errors import LM15Error
    from dspy.clients.capabilities import resolve

    try:
        route = resolve(lm)
    except LM15Error:
        return None
    variable: str | None = None if route.provider.startswith("bedrock") or route.placeholder_key else route.env_key
    return variable


def priced_providers() -> set[str]:
    """Return the names of all providers in DSPy's price map, in LiteLLM's spellings; empty if that is unknown."""
    if apply_patch(PRICES):
        return set()
    from dspy.clients.model_metadata import _load

    prices = _load()
    listed = {
        entry.get("litellm_provider", "").partition("-")[0] for entry in prices.values() if isinstance(entry, dict)
    }
    return {name for name in listed | {key.partition("/")[0] for key in prices if "/" in key} if name}


@functools.cache
def input_price(provider: str, model: str, region: str | None) -> float | None:
    """Return a model's price per input token in USD, or None if DSPy's price map does not have it.

    Args:
        region: where a model on Bedrock is called.
    """
    if apply_patch(PRICES):
        return None
    from dspy.clients.model_metadata import model_info, rate

    info = bedrock_info(provider, model, region) if provider in PROVIDERS else model_info(provider, model)
    price: float | None = rate(info, "input_cost_per_token")
    return price


def raised_by_parallel(traceback: TracebackType | None) -> bool:
    """Whether `dspy.Parallel` itself raised an exception, which then has no cause.

    Args:
        traceback: its innermost entry.
    """
    return traceback is not None and traceback.tb_frame.f_globals.get("__name__") == PARALLELIZER


def renew_asyncify_slots() -> None:
    """Free all slots of `dspy.asyncify`, which `dspy.streamify` also uses.

    Abandoned calls keep their slots as long as their loop is blocked.
    """
    if apply_patch(ASYNCIFY_SLOTS) is None:
        importlib.import_module(_ASYNCIFY)._limiter = None  # type: ignore[attr-defined]


def is_type_undefined(extra: dict[str, Any]) -> bool:
    """Whether a signature's field was defined without a type, according to its `json_schema_extra`."""
    if apply_patch(UNDEFINED_TYPES):
        return False
    from dspy.utils.constants import IS_TYPE_UNDEFINED

    return bool(extra.get(IS_TYPE_UNDEFINED))


def usage_setting(usage: Any) -> dict[str, Any]:
    """Return the setting for `dspy.context` or `dspy.configure` by which an LM call finds its usage."""
    return {} if apply_patch(OWN_SETTING) else {USAGE_SETTING: usage}


def usage_of_settings() -> Any:
    """Return the usage that `usage_setting` has set, or None."""
    if apply_patch(OWN_SETTING):
        return None
    import dspy

    return dspy.settings.get(USAGE_SETTING)


def stream_progress() -> AbstractContextManager[Any]:
    """Return a context for an LM call; its `emitted` says whether the call has streamed a part of its answer."""
    if apply_patch(STREAM_PROGRESS):
        return nullcontext(SimpleNamespace(emitted=True))
    from dspy.clients.call_context import adapter_fallback_scope

    scope: AbstractContextManager[Any] = adapter_fallback_scope()
    return scope


def adapter_messages(lm: dspy.LM, messages: Any) -> AbstractContextManager[None]:
    """Return a context in which an LM may be called with messages that an adapter wrote for another LM."""
    if apply_patch(ADAPTER_MESSAGES):
        return nullcontext()
    from dspy.clients._deprecation import adapter_message_call

    scope: AbstractContextManager[None] = adapter_message_call(lm, messages)
    return scope


# Internals of lm15, DSPy's HTTP client, for `provider_bounds`, whose patches depend on these names.


@functools.cache
def default_read_timeout() -> float:
    """Return the seconds that lm15 waits for a byte by default."""
    try:
        from dspy._vendor.lm15.transports._limits import DEFAULT_READ_TIMEOUT
    except ImportError:  # another engine, with other limits
        return 600.0
    seconds: float = DEFAULT_READ_TIMEOUT
    return seconds


@functools.cache
def transport_error() -> type[Exception]:
    """Return the exception class that lm15 raises for network failures."""
    from dspy._vendor.lm15.transports._exceptions import TransportError

    kind: type[Exception] = TransportError
    return kind


def read_timeout_of(transport: Any) -> float:
    """Return the seconds that a transport waits for a byte."""
    seconds: float = transport._read_timeout
    return seconds


@functools.cache
def protocol_error() -> type[Exception]:
    """Return the exception class that lm15 raises if an answer is not HTTP."""
    from dspy._vendor.lm15.transports._exceptions import ProtocolError

    kind: type[Exception] = ProtocolError
    return kind


def most_of_head(parser: Any) -> int | None:
    """Return the limit that a parser's headers exceed, or None if they do not."""
    most: int = parser._max
    return most if len(parser._buf) > most else None


def is_packed_twice(parser: Any, decoder: Any) -> bool:
    """Whether a body has more than one content coding."""
    from dspy._vendor.lm15.transports._http11 import ContentDecoder, content_codings

    if not isinstance(decoder, ContentDecoder):
        return False
    return len(content_codings(parser.headers_all("content-encoding"))) > 1
