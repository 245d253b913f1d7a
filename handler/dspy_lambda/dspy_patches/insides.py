"""What is read of DSPy's insides, and the ground of each reading.

Imported by modules that must not load DSPy: all of DSPy is imported within the functions.
"""

from __future__ import annotations

import functools
import importlib
from types import TracebackType
from typing import TYPE_CHECKING, Any

from dspy_lambda.dspy_patches.patch import Name, Patch, put_in_place

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
    "DSPY_LAMBDA_PRECONNECT: a TLS handshake (16-18 ms of CPU for the pool, DSPy 3.4.1) that no caller waits for; "
    "and `build` leaves LiteLLM out where no LM needs it: 111 MB of an artifact",
    (
        Name(EXECUTION, "prepare", PREPARE),
        Name(EXECUTION, "_engine", "lm call asynchronous"),
        Name(LM15_ENGINE, "_Routing._target", "self request streaming"),
        Name("dspy.clients.engines.litellm_engine", "LiteLLMEngine"),
    ),
)
PRICES = Patch(
    "whether a model has a price",
    "a warning where a spend alarm would see nothing; nothing at run time",
    (
        Name("dspy._vendor.lm15.errors", "LM15Error"),
        Name("dspy.clients.capabilities", "resolve", "lm"),
        Name(METADATA, "model_info", "provider model namespaces"),
        Name(METADATA, "rate", "info key"),
    ),
)
PARALLEL = Patch(
    "the reasons of dspy.Parallel",
    "its bare Exception chains nothing: without this an outage counts as the program's failure, which no retry follows",
    (Name(PARALLELIZER, "ParallelExecutor"),),
)
ASYNCIFY_SLOTS = Patch(
    "free slots of dspy.asyncify",
    "calls that were left to themselves keep its 8 slots, and all later ones would wait for them",
    (Name(_ASYNCIFY, "_limiter"), Name(_ASYNCIFY, "get_limiter", "")),
)
UNDEFINED_TYPES = Patch(
    "fields without a type",
    "DSPy calls them str and takes anything; without this, what is no text is a 422",
    (Name("dspy.utils.constants", "IS_TYPE_UNDEFINED"),),
)


def _try_usage_setting() -> None:
    import dspy

    with dspy.settings.context(**{USAGE_SETTING: ENGINES}):
        if dspy.settings.get(USAGE_SETTING) is not ENGINES:
            raise AttributeError("dspy.settings keep no setting of others")


OWN_SETTING = Patch(
    "a setting of our own in dspy.settings",
    "tokens and cost of LM calls in threads that DSPy starts without the context",
    (
        Name(_SETTINGS, "Settings.configure", "self kwargs"),
        Name(_SETTINGS, "Settings.context", "self kwargs"),
        Name(_SETTINGS, "Settings.get", "self key default"),
    ),
    _try_usage_setting,
)
READINGS = (ENGINES, PRICES, PARALLEL, ASYNCIFY_SLOTS, UNDEFINED_TYPES, OWN_SETTING)


def native_provider(lm: dspy.LM, *, asynchronous: bool) -> Any:
    """The native provider behind an LM, with the connection pool that the LM's calls will use.

    Raises:
        LookupError: it cannot be told of this DSPy.
    """
    if reason := put_in_place(ENGINES):
        raise LookupError(reason)
    engine, request = _engine_of(lm, asynchronous)
    provider, _ = engine._target(request)
    return provider


def uses_litellm(lm: dspy.LM) -> bool:
    """Whether a plain chat call of this LM would go through LiteLLM, told by DSPy's own backend selection.

    True where that cannot be told: an artifact with LiteLLM is larger, one without it may not answer.

    Raises:
        ValueError, TypeError: no call of this LM can succeed.
    """
    if put_in_place(ENGINES):
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


def has_price(lm: dspy.LM) -> bool:
    """Whether DSPy's price map has what the tokens of an LM's calls cost; without it `cost_usd` is null.

    True where that cannot be told.
    """
    if put_in_place(PRICES):
        return True
    from dspy._vendor.lm15.errors import LM15Error
    from dspy.clients.capabilities import resolve
    from dspy.clients.model_metadata import model_info, rate

    try:
        route = resolve(lm)
        info = model_info(route.provider, route.model)
    except LM15Error:  # a provider that only LiteLLM knows
        provider, _, model = lm.model.partition("/")
        info = model_info(provider, model, namespaces=tuple(name.format(provider) for name in _PRICED_AS))
    return all(rate(info, f"{kind}_cost_per_token") is not None for kind in ("input", "output"))


def raised_by_parallel(traceback: TracebackType | None) -> bool:
    """Whether an exception was made by `dspy.Parallel` itself, which chains nothing to it."""
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback is not None and traceback.tb_frame.f_globals.get("__name__") == PARALLELIZER


def renew_asyncify_slots() -> None:
    """Begin with free slots of `dspy.asyncify`, which `dspy.streamify` takes, too: calls that were left to themselves
    keep those they have, for as long as their loop stands still."""
    if put_in_place(ASYNCIFY_SLOTS) is None:
        importlib.import_module(_ASYNCIFY)._limiter = None  # type: ignore[attr-defined]


def is_type_undefined(extra: dict[str, Any]) -> bool:
    """Whether a signature's field was written without a type, told by its `json_schema_extra`."""
    if put_in_place(UNDEFINED_TYPES):
        return False
    from dspy.utils.constants import IS_TYPE_UNDEFINED

    return bool(extra.get(IS_TYPE_UNDEFINED))


def usage_setting(usage: Any) -> dict[str, Any]:
    """The setting for `dspy.context` or `dspy.configure` by which an LM call finds its usage."""
    return {} if put_in_place(OWN_SETTING) else {USAGE_SETTING: usage}


def usage_of_settings() -> Any:
    """What `usage_setting` has set; None if nothing has."""
    if put_in_place(OWN_SETTING):
        return None
    import dspy

    return dspy.settings.get(USAGE_SETTING)


# Of lm15, DSPy's own HTTP client: for `provider_bounds`, whose patches name these as their ground.


@functools.cache
def default_read_timeout() -> float:
    """Seconds that lm15 waits for a byte where nobody says otherwise."""
    try:
        from dspy._vendor.lm15.transports._limits import DEFAULT_READ_TIMEOUT
    except ImportError:  # the engine is another's, and so are its limits
        return 600.0
    seconds: float = DEFAULT_READ_TIMEOUT
    return seconds


@functools.cache
def transport_error() -> type[Exception]:
    """What lm15 raises where the network fails."""
    from dspy._vendor.lm15.transports._exceptions import TransportError

    kind: type[Exception] = TransportError
    return kind


def read_timeout_of(transport: Any) -> float:
    """How long a transport waits for a byte."""
    seconds: float = transport._read_timeout
    return seconds


@functools.cache
def protocol_error() -> type[Exception]:
    """What lm15 raises where an answer is not HTTP."""
    from dspy._vendor.lm15.transports._exceptions import ProtocolError

    kind: type[Exception] = ProtocolError
    return kind


def most_of_head(parser: Any) -> int | None:
    """The limit that the headers at a parser are over; None where they are not."""
    most: int = parser._max
    return most if len(parser._buf) > most else None


def is_packed_twice(parser: Any, decoder: Any) -> bool:
    """Whether a body comes in more than one content coding."""
    from dspy._vendor.lm15.transports._http11 import ContentDecoder, content_codings

    if not isinstance(decoder, ContentDecoder):
        return False
    return len(content_codings(parser.headers_all("content-encoding"))) > 1
