"""Replacements of DSPy's functions and attributes, and the names that each depends on."""

from __future__ import annotations

import copy
import functools
import importlib
import logging
import os
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

from dspy_lambda.dspy_patches.insides import EXECUTION, HTTP, LM15_ENGINE, METADATA, PARALLELIZER, PREPARE
from dspy_lambda.dspy_patches.patch import Function, Name, Patch
from dspy_lambda.settings import API_BASE

if TYPE_CHECKING:
    import dspy


# Progress bars.


class _NoBar:
    """Replaces tqdm's bar; accepts any call and does nothing."""

    _instances: ClassVar[set[object]] = set()

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __getattr__(self, _: str) -> Callable[..., None]:
        return lambda *_, **__: None


NO_BARS = Patch(
    "no progress bars of dspy.Parallel and Module.batch",
    # DSPy passes `disable` to tqdm explicitly, so TQDM_DISABLE has no effect.
    "prevents half a log line for each item. DSPy also empties tqdm's set of all bars before each new one, so one of "
    "two concurrent calls sometimes fails with a KeyError, even if bars are disabled",
    (
        Name(PARALLELIZER, "tqdm.tqdm"),
        Name(PARALLELIZER, "ParallelExecutor.execute", "self function data"),
        Name(PARALLELIZER, "tqdm", wrap=lambda _: SimpleNamespace(tqdm=_NoBar)),
    ),
)


# History.


def history_patch(receive: Callable[[Any, dict[str, Any]], None]) -> Patch:
    """Send each answered LM call's history entry to `receive`, with the LM, instead of to DSPy's `record_history`.

    Only a history entry has both tokens and cost. `dspy.track_usage` has no cost and is empty inside `dspy.Parallel`;
    with `disable_history=True` there are neither tokens nor cost.
    """

    def record(client: Any, entry: dict[str, Any]) -> None:
        receive(client, entry)

    def put() -> None:
        # TypeSafe, which is not a BaseLM, has imported the name; if it is imported later, it gets the replacement.
        if (typesafe := sys.modules.get("dspy.clients.typesafe")) is not None:
            typesafe.record_history = record  # type: ignore[attr-defined]

    return Patch(
        "a separate history for each call",
        "14 KiB per call (DSPy 3.4.1, prompts of 3 KB) in the lists of the LM, the modules and globally, where prompts "
        "of different callers would be mixed; and it counts tokens and cost of LMs that programs create",
        (Name("dspy.clients.base_lm", "record_history", "client entry", wrap=lambda _: record),),
        put,
    )


# A gateway.


def _init_with_base(original: Function) -> Function:
    def init(lm: dspy.LM, *args: Any, **options: Any) -> None:
        takes_one = isinstance(options.get("engine", "auto"), str)  # an engine object has its own connection
        base = os.environ.get(API_BASE) if takes_one else None
        original(lm, *args, **{**options, "api_base": base} if base else options)

    return init


GATEWAY = Patch(
    "DSPY_LAMBDA_API_BASE for every dspy.LM",
    "LMs that programs create also send their calls to this gateway or mock instead of their provider",
    (Name("dspy.clients.lm", "LM.__init__", "self model ...", wrap=_init_with_base),),
)


# dspy.Refine and dspy.BestOfN.


def _keep_apart(forward: Function) -> Function:
    """Wrap `forward` of both: run on a copy for each call, and raise if the model failed every attempt."""
    from dspy_lambda.call import CALL

    def run(self: Any, **inputs: Any) -> Any:
        call = CALL.get()
        before = None if call is None else call.lm_error
        found = forward(copy.copy(self), **inputs)
        if found is None and call is not None and call.lm_error is not None and call.lm_error is not before:
            raise call.lm_error
        return found

    return run


def _log_prints(module: str) -> None:
    """Log what they print of a failed attempt, which is an exception's text."""
    importlib.import_module(module).print = logging.getLogger(module).warning  # type: ignore[attr-defined]


def _best(module: str, kind: str) -> Patch:
    return Patch(
        f"separate calls of dspy.{kind}",
        "DSPy keeps the number of failures that it still tolerates in the module, so failures of one call would count "
        "in all later ones. It also returns None if all attempts failed, so a record would count as done in an outage",
        (Name(module, f"{kind}.forward", "self kwargs", wrap=_keep_apart),),
        functools.partial(_log_prints, module),
    )


BEST_OF = (_best("dspy.predict.best_of_n", "BestOfN"), _best("dspy.predict.refine", "Refine"))


# CPU.


def _load_prices() -> None:
    importlib.import_module(METADATA).source_info()


_MODELS = 256


@functools.cache
def _remembered(model_info: Function) -> Function:
    return functools.lru_cache(maxsize=_MODELS)(model_info)


PRICE_MAP = Patch(
    "the price map at init",
    "the first call need not load about 5,000 entries",
    (Name(METADATA, "source_info", ""),),
    _load_prices,
    is_for_speed=True,
)
_MODEL_INFO = "provider model namespaces"
PRICE_LOOKUPS = Patch(
    "one price lookup per model",
    "0.8-1.4 ms of the 1.5 ms of CPU of a sync call for a model that the price map does not list (DSPy 3.4.1, 2 cores)",
    (
        Name("dspy.clients.costs", "model_info", _MODEL_INFO, wrap=_remembered),
        Name("dspy.clients.capabilities", "model_info", _MODEL_INFO, wrap=_remembered),
    ),
    is_for_speed=True,
)


def _check_named(check: Function) -> Function:
    """Wrap `router._check_provider_keyed`: a config that names no provider has nothing to check."""

    def checked(config: Any, adapters: Any) -> None:
        if config.api_keys or config.base_urls or config.settings or config.credentials:
            check(config, adapters)

    return checked


ROUTER_CHECKS = Patch(
    "no list of all providers for each call",
    "DSPy creates three routers in each call, which list all providers to check a config that names none",
    (Name("dspy._vendor.lm15.router", "_check_provider_keyed", "config adapters", wrap=_check_named),),
    is_for_speed=True,
)


def _remember_model(for_model: Function) -> Function:
    """Wrap `OpenAIChatCompat.for_model`, whose instances are constants and cannot be hashed."""
    known: dict[tuple[int, str], tuple[Any, Any]] = {}

    def remembered(self: Any, model: str) -> Any:
        found = known.get((id(self), model))
        if found is None or found[0] is not self:
            if len(known) >= _MODELS:
                known.clear()
            found = known[id(self), model] = self, for_model(self, model)
        return found[1]

    return remembered


MODEL_RULES = Patch(
    "one lookup of a model's rules",
    "DSPy looks up eight times in each call what a server's models take, 0.1-0.2 ms of CPU on Bedrock (DSPy 3.4.1)",
    (Name("dspy._vendor.lm15.compat", "OpenAIChatCompat.for_model", "self model", wrap=_remember_model),),
    is_for_speed=True,
)
PROXY_LOOKUPS = Patch(
    "one read of the proxy settings",
    "a loop over all environment variables for each request",
    (Name(f"{HTTP}._proxy", "getproxies", "", wrap=functools.cache),),
    is_for_speed=True,
)

# Functions that DSPy runs in the thread pool although they are pure and short, given that the price map is loaded and
# that the disk cache is off, which a project may change.
_TARGET = (LM15_ENGINE, "_Routing._target")
_CACHED, _STORE = (EXECUTION, "_cached"), (EXECUTION, "_store")
PURE = (
    Name(EXECUTION, "prepare", PREPARE),
    Name(*_CACHED, "lm call asynchronous"),
    Name(*_STORE, "lm call result asynchronous"),
    Name(EXECUTION, "_price_result", "lm result response provider request"),
    Name(EXECUTION, "_price_legacy", "lm result provider"),
    Name("dspy.clients.capabilities", "capabilities", "lm"),
    Name(*_TARGET, "self request streaming"),
)
_pure: set[tuple[str, str]] = set()


def _pure_call(name: Name) -> Patch:
    return Patch(
        f"{name.name} on the loop",
        "a hop to a thread and back; without all of an async call's hops, 1.0-1.3 ms of CPU remain of 1.6-2.0 "
        "(DSPy 3.4.1, 2 cores)",
        (name,),
        lambda: _pure.add((name.module, name.name)),
        is_for_speed=True,
    )


PURE_CALLS = tuple(_pure_call(name) for name in PURE)


def is_pure(function: Callable[..., Any]) -> bool:
    """Whether a call meant for the thread pool can run on the loop itself.

    `asyncio.to_thread(f, ...)` passes `partial(context.run, f, ...)`.
    """
    if not isinstance(function, functools.partial) or not function.args:
        return False
    inner = function.args[0]
    name = (getattr(inner, "__module__", None), getattr(inner, "__qualname__", None))
    if name not in _pure:
        return False
    if name in (_CACHED, _STORE):
        import dspy

        return not getattr(dspy.cache, "enable_disk_cache", True)
    if name == _TARGET:
        # Creating a provider without a key may read a login's files or refresh it over the network.
        routing = inner.__self__
        return bool(getattr(routing, "_providers", None) or getattr(getattr(routing, "config", None), "api_keys", None))
    return True


FOR_SPEED = (PRICE_MAP, PRICE_LOOKUPS, ROUTER_CHECKS, MODEL_RULES, PROXY_LOOKUPS, *PURE_CALLS)
