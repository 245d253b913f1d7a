"""LMs that programs hold or make themselves: shared connection pools, limits without LiteLLM, and renewed keys."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from dspy_lambda.dspy_patches.insides import EXECUTION, LM15_ENGINE, PREPARE
from dspy_lambda.dspy_patches.patch import Function, Name, Patch
from dspy_lambda.limits import shared_limit

PARALLEL = "max_parallel_requests"
# More than the models, keys and timeouts of any project; programs that make a new key or timeout for each call would
# otherwise open connections without end.
_MAX_POOLS = 64
_LM = "dspy.clients.lm"


# Connection pools.


class Pools(dict[Any, Any]):
    """DSPy's engines, each with its connection pool, by loop, model and connection settings.

    Forgets the oldest one above a maximum; DSPy's finalizers close its connections once no call uses it.
    """

    def __init__(self, providers: Any) -> None:
        super().__init__()
        self.providers = providers
        self.lock = threading.RLock()

    def __setitem__(self, key: Any, engine: Any) -> None:
        super().__setitem__(key, engine)
        if len(self) > _MAX_POOLS:
            del self[next(iter(self))]

    def take(self, loop: asyncio.AbstractEventLoop | None) -> list[tuple[Any, Any]]:
        """Remove and return the engines of a loop and of threads (None), each with its loop."""
        with self.lock:
            keys = [key for key in self if key[0] in (loop, None)]
            return [(key[0], self.pop(key)) for key in keys]


# One for each set of providers that a project has registered at DSPy, usually none.
_pools: list[Pools] = []
_adding = threading.Lock()


def _has_own_pool(lm: Any) -> bool:
    """Whether this is an alias's LM: the environment closes its pool and renews its key."""
    return bool(getattr(lm, "has_own_pool", False))


def _share(lm: Any) -> None:
    """Let an LM that a program makes use the pools of all such LMs."""
    if _has_own_pool(lm):
        return
    with _adding:
        pools = next((one for one in _pools if one.providers == lm._providers), None)
        if pools is None:
            pools = Pools(lm._providers)
            _pools.append(pools)
    lm._engine_store, lm._engine_lock = pools, pools.lock


def _init_sharing(original: Function) -> Function:
    def init(lm: Any, *args: Any, **options: Any) -> None:
        original(lm, *args, **options)
        _share(lm)

    return init


def _set_state_sharing(original: Function) -> Function:
    """Wrap `LM.__setstate__`: a deep copy, as dspy.Refine makes of modules, also keeps its pool."""

    def set_state(lm: Any, state: dict[str, Any]) -> None:
        original(lm, state)
        _share(lm)

    return set_state


def _close_only_its_own(original: Function) -> Function:
    def close(lm: Any) -> None:
        if not isinstance(lm._engine_store, Pools):
            original(lm)

    return close


def _aclose_only_its_own(original: Callable[..., Awaitable[None]]) -> Function:
    async def aclose(lm: Any) -> None:
        if not isinstance(lm._engine_store, Pools):
            await original(lm)

    return aclose


def _try_pools() -> None:
    import dspy

    found = vars(dspy.LM("openai/m"))
    if type(found.get("_engine_store")) is not dict or not {"_engine_lock", "_providers"} <= found.keys():
        raise AttributeError("dspy.LM keeps its engines elsewhere")


SHARED_POOLS = Patch(
    "one connection pool for all equal LMs of programs",
    "a dspy.LM that each call makes opened a connection each, and left its socket open (50 for 50 calls, DSPy 3.4.1). "
    "Closing one LM does not close the connections of others",
    (
        Name(LM15_ENGINE, "LM15Engine.close", "self"),
        Name(LM15_ENGINE, "AsyncLM15Engine.aclose", "self", is_async=True),
        Name(_LM, "LM.__init__", "self model ...", wrap=_init_sharing),
        Name(_LM, "LM.__setstate__", "self state", wrap=_set_state_sharing),
        Name(_LM, "LM.close", "self", wrap=_close_only_its_own),
        Name(_LM, "LM.aclose", "self", is_async=True, wrap=_aclose_only_its_own),
    ),
    _try_pools,
)


async def close_pools() -> None:
    """Close the connections of all own LMs: those of this loop, and those of threads. No call may be running."""
    for pools in list(_pools):
        for loop, engine in pools.take(asyncio.get_running_loop()):
            if loop is None:
                engine.close()
            else:
                await engine.aclose()


# Limits and keys.

_renewed: dict[str, str] = {}


def renew_keys(changed: Mapping[str, str]) -> None:
    """Replace keys, from the old to the new one, in later calls of LMs that were made with the old one.

    Engines that have read a key from the environment are dropped; running calls keep theirs.
    """
    if not changed:
        return
    for old, new in _renewed.items():
        _renewed[old] = changed.get(new, new)
    _renewed.update({old: new for old, new in changed.items() if old and old != new})
    for new in changed.values():
        _renewed.pop(new, None)  # it is valid again
    for pools in list(_pools):
        with pools.lock:
            pools.clear()


def _prepare_own(prepare: Function) -> Function:
    """Wrap `execution.prepare`: take what DSPy would pass to LiteLLM out of a call, and apply it here."""

    def prepared(lm: Any, prompt: Any, messages: Any, kwargs: dict[str, Any], **options: Any) -> Any:
        held = getattr(lm, "kwargs", None) or {}
        if PARALLEL not in kwargs and PARALLEL not in held and not _renewed:
            return prepare(lm, prompt, messages, kwargs, **options)
        rest = {name: value for name, value in kwargs.items() if name != PARALLEL}
        call = prepare(lm, prompt, messages, rest, **options)
        if not call.managed:  # an LM with its own `forward` gets what it was given; DSPy's part of it comes here again
            return prepare(lm, prompt, messages, kwargs, **options)
        call.legacy.pop(PARALLEL, None)
        settings = {**held, **kwargs}
        key = settings.get("api_key")
        if isinstance(key, str) and key in _renewed and not _has_own_pool(lm):
            settings["api_key"] = call.legacy["api_key"] = _renewed[key]
        if (most := settings.get(PARALLEL)) is not None:
            call.own_limit = shared_limit(_client_of(lm, settings), most)
        return call

    return prepared


def _client_of(lm: Any, settings: dict[str, Any]) -> tuple[Any, ...]:
    """Return what distinguishes an LM's model and connection from those of others."""
    from dspy.clients.backend_selection import CLIENT_KEYS

    return (lm.model, lm.model_type, *sorted((key, repr(settings[key])) for key in CLIENT_KEYS & settings.keys()))


def _try_own_limit() -> None:
    from dspy.clients.execution import PreparedCall

    if "__slots__" in vars(PreparedCall):
        raise AttributeError(f"{EXECUTION}.PreparedCall takes no further attributes")


OWN_LIMITS = Patch(
    "max_parallel_requests of LMs in code",
    "LiteLLM, 111 MB of an artifact and 2 s of its first call, which DSPy selects for this option alone",
    (
        Name("dspy.clients.backend_selection", "CLIENT_KEYS"),
        Name(EXECUTION, "PreparedCall"),
        Name(EXECUTION, "prepare", PREPARE, wrap=_prepare_own),
    ),
    _try_own_limit,
)
OWN = (SHARED_POOLS, OWN_LIMITS)
