"""What takes the place of a function or attribute of DSPy's, and what each stands on."""

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
    """Stands in for tqdm's bar, whatever is asked of it."""

    _instances: ClassVar[set[object]] = set()

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __getattr__(self, _: str) -> Callable[..., None]:
        return lambda *_, **__: None


NO_BARS = Patch(
    "no progress bars of dspy.Parallel and Module.batch",
    # DSPy tells tqdm itself whether to show them, so TQDM_DISABLE changes nothing.
    "half a line of log for each item; and DSPy empties tqdm's set of all bars before each new one: of two calls at "
    "once, one sometimes fails with a KeyError, even where bars are disabled",
    (
        Name(PARALLELIZER, "tqdm.tqdm"),
        Name(PARALLELIZER, "ParallelExecutor.execute", "self function data"),
        Name(PARALLELIZER, "tqdm", wrap=lambda _: SimpleNamespace(tqdm=_NoBar)),
    ),
)


# History.


def history_patch(receive: Callable[[Any, dict[str, Any]], None]) -> Patch:
    """Send each answered LM call's history entry to `receive`, with the LM, in place of DSPy's `record_history`.

    An entry is the one place where DSPy has tokens and cost together. `dspy.track_usage` has no cost and is empty
    inside `dspy.Parallel`; `disable_history=True` gives neither tokens nor cost.
    """

    def record(client: Any, entry: dict[str, Any]) -> None:
        receive(client, entry)

    def put() -> None:
        # TypeSafe, which is no BaseLM, has it by a name of its own: of this one, if it is imported from now on.
        if (typesafe := sys.modules.get("dspy.clients.typesafe")) is not None:
            typesafe.record_history = record  # type: ignore[attr-defined]

    return Patch(
        "a history of each call's own",
        "14 KiB a call (DSPy 3.4.1, prompts of 3 KB) in the LM's, the modules' and a global list, with one caller's "
        "prompt beside another's; and it tells the tokens and cost of the LMs that programs make",
        (Name("dspy.clients.base_lm", "record_history", "client entry", wrap=lambda _: record),),
        put,
    )


# Programs' own LMs.


def _init_with_base(original: Function) -> Function:
    def init(lm: dspy.LM, *args: Any, **options: Any) -> None:
        takes_one = isinstance(options.get("engine", "auto"), str)  # an engine of its own has its own connection
        base = os.environ.get(API_BASE) if takes_one else None
        original(lm, *args, **{**options, "api_base": base} if base else options)

    return init


OWN_MODELS = Patch(
    "DSPY_LAMBDA_API_BASE for every dspy.LM",
    "a program's own LMs, too, ask the gateway or mock that is named there, and not their provider",
    (Name("dspy.clients.lm", "LM.__init__", "self model ...", wrap=_init_with_base),),
)


# dspy.Refine and dspy.BestOfN.


def _keep_apart(forward: Function) -> Function:
    """`forward` of both: on a copy for each call, and failed where the model failed every attempt."""
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
    """What they print of a failed attempt is an exception's text."""
    importlib.import_module(module).print = logging.getLogger(module).warning  # type: ignore[attr-defined]


def _best(module: str, kind: str) -> Patch:
    return Patch(
        f"calls of dspy.{kind} apart",
        "DSPy counts the failures that it tolerates down in the module itself: what one call used up, all later ones "
        "lack. And it returns None where all attempts failed: a record of an outage would count as done",
        (Name(module, f"{kind}.forward", "self kwargs", wrap=_keep_apart),),
        functools.partial(_log_prints, module),
    )


BEST_OF = (_best("dspy.predict.best_of_n", "BestOfN"), _best("dspy.predict.refine", "Refine"))


# CPU.


def _load_prices() -> None:
    importlib.import_module(METADATA).source_info()


@functools.cache
def _remembered(model_info: Function) -> Function:
    return functools.lru_cache(maxsize=256)(model_info)


PRICE_MAP = Patch(
    "the price map at init",
    "the first call's load of some 5,000 entries",
    (Name(METADATA, "source_info", ""),),
    _load_prices,
    is_for_speed=True,
)
_MODEL_INFO = "provider model namespaces"
PRICE_LOOKUPS = Patch(
    "each model looked up once",
    "0.8-1.4 ms of CPU a call for a model that the price map does not know (DSPy 3.4.1, 2 cores): of 1.5 ms sync",
    (
        Name("dspy.clients.costs", "model_info", _MODEL_INFO, wrap=_remembered),
        Name("dspy.clients.capabilities", "model_info", _MODEL_INFO, wrap=_remembered),
    ),
    is_for_speed=True,
)
PROXY_LOOKUPS = Patch(
    "proxy settings read once",
    "a walk through all environment variables for each request",
    (Name(f"{HTTP}._proxy", "getproxies", "", wrap=functools.cache),),
    is_for_speed=True,
)

# What DSPy hands to the thread pool although it is pure and short: with the disk cache off, which a project may turn
# on, and the price map loaded.
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
        "a hop to a thread and back: of those that an async call makes, 1.0-1.3 ms of CPU in all are left of 1.6-2.0 "
        "(DSPy 3.4.1, 2 cores)",
        (name,),
        lambda: _pure.add((name.module, name.name)),
        is_for_speed=True,
    )


PURE_CALLS = tuple(_pure_call(name) for name in PURE)


def is_pure(function: Callable[..., Any]) -> bool:
    """Whether a call that was meant for the thread pool can run on the loop itself.

    `asyncio.to_thread(f, ...)` comes as `partial(context.run, f, ...)`.
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
        # Without a key of its own it may refresh a login over the network.
        return bool(getattr(getattr(inner.__self__, "config", None), "api_keys", None))
    return True


FOR_SPEED = (PRICE_MAP, PRICE_LOOKUPS, PROXY_LOOKUPS, *PURE_CALLS)
