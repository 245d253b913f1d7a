"""Everything that touches DSPy's insides: CPU taken back from outside, and what DSPy tells nobody otherwise.

Two thirds of what an async call burns is none of the program's: each hops four times through the loop's thread pool
for work of microseconds, and each looks its model up in a price map of some 5,000 entries. On a function of 512 MB
that is most of its time. `DSPY_LAMBDA_FAST=false` leaves those hops and lookups to DSPy.
`tests/handler/test_dspy_patches.py` fails when a new DSPy changes the ground that this stands on.
"""

from __future__ import annotations

import copy
import functools
import importlib
import inspect
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType, SimpleNamespace, TracebackType
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import dspy

    from dspy_lambda.provider_bounds import Patch, ProviderBounds

# What DSPy hands to the thread pool although it is pure and short: with the disk cache off and the price map loaded,
# as they are here. By module and qualified name, so that what is not known is left alone.
_PURE = {
    ("dspy.clients.execution", "prepare"),
    ("dspy.clients.execution", "_cached"),
    ("dspy.clients.execution", "_store"),
    ("dspy.clients.execution", "_price_result"),
    ("dspy.clients.execution", "_price_legacy"),
    ("dspy.clients.capabilities", "capabilities"),
}
_TARGET = ("dspy.clients.engines.lm15_engine", "_Routing._target")


@contextmanager
def quick_stacks() -> Iterator[None]:
    """For `import dspy`: `inspect.stack()` without a search for each frame's source.

    DSPy asks for the whole stack for every optional package that is not installed (numpy, openai, ...), to name a
    line in an error that nobody may ever see. Measured, Python 3.13 under the runtime client, where the stack is
    deep: 0.9 s of a cold start of 1.4 s; 0.07 s in a bare interpreter.
    """
    stack = inspect.stack
    inspect.stack = _stack
    try:
        yield
    finally:
        inspect.stack = stack


def _stack(context: int = 1) -> list[inspect.FrameInfo]:
    frames = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        frames.append(inspect.FrameInfo(frame, code.co_filename, frame.f_lineno, code.co_name, None, None))
        frame = frame.f_back
    return frames


def is_pure(function: Callable[..., Any]) -> bool:
    """Whether a call that was meant for the thread pool can run on the loop itself.

    `asyncio.to_thread(f, ...)` comes as `partial(context.run, f, ...)`.
    """
    if not isinstance(function, functools.partial) or not function.args:
        return False
    inner = function.args[0]
    name = (getattr(inner, "__module__", None), getattr(inner, "__qualname__", None))
    if name == _TARGET:
        # Without a key of its own it may refresh a login over the network.
        return bool(inner.__self__.config.api_keys)
    return name in _PURE


def remember_lookups() -> None:
    """Load the price map now, and look each model and the proxy settings up once."""
    from dspy._vendor.lm15.transports import _proxy
    from dspy.clients import capabilities, costs, model_metadata

    model_metadata.source_info()
    if not hasattr(costs.model_info, "cache_info"):
        remembered = functools.lru_cache(maxsize=256)(model_metadata.model_info)
        costs.model_info = remembered
        capabilities.model_info = remembered
        _proxy.getproxies = functools.cache(_proxy.getproxies)


class _NoBar:
    """Stands in for tqdm's bar."""

    _instances: ClassVar[set[object]] = set()

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def set_description(self, _: str) -> None:
        pass

    def update(self) -> None:
        pass

    def close(self) -> None:
        pass


def leave_out_progress_bars() -> None:
    """No progress bars of `dspy.Parallel` and `Module.batch`, which nobody watches in a log.

    DSPy tells tqdm itself whether to show them, so TQDM_DISABLE changes nothing. And it empties tqdm's set of all
    bars before each new one: of two calls at once, one sometimes fails with a KeyError, even where bars are disabled.
    """
    from dspy.utils import parallelizer

    parallelizer.tqdm = SimpleNamespace(tqdm=_NoBar)


def receive_history(receive: Callable[[Any, dict[str, Any]], None]) -> None:
    """Send each answered LM call's history entry to `receive`, with the LM, in place of DSPy's `record_history`.

    An entry is the one place where DSPy has tokens and cost together. DSPy appends it to the LM's, the modules' and a
    global list (14 KiB a call, with one caller's prompt beside another's). `dspy.track_usage` has no cost and is empty
    inside `dspy.Parallel`; `disable_history=True` gives neither tokens nor cost.
    """
    from dspy.clients import base_lm

    base_lm.record_history = receive
    # TypeSafe, which is no BaseLM, has it by a name of its own: of this one, if it is imported from now on.
    if (typesafe := sys.modules.get("dspy.clients.typesafe")) is not None:
        typesafe.record_history = receive  # type: ignore[attr-defined]


def send_own_models(variable: str) -> None:
    """Send every `dspy.LM` that is made from now on, a program's own among them, where this variable says."""
    from dspy.clients.lm import LM

    if not hasattr(LM.__init__, "__wrapped__"):
        original = LM.__init__

        @functools.wraps(original)
        def init(lm: dspy.LM, *args: Any, **options: Any) -> None:
            takes_one = isinstance(options.get("engine", "auto"), str)  # an engine of its own has its own connection
            base = os.environ.get(variable) if takes_one else None
            original(lm, *args, **{**options, "api_base": base} if base else options)

        LM.__init__ = init


def renew_asyncify_slots() -> None:
    """Begin with free slots of `dspy.asyncify`, which `dspy.streamify` takes, too: calls that were left to themselves
    keep those they have, for as long as their loop stands still."""
    sys.modules["dspy.utils.asyncify"]._limiter = None  # type: ignore[attr-defined]


def native_provider(lm: dspy.LM, *, asynchronous: bool) -> Any:
    """The native provider behind an LM, with the connection pool that the LM's calls will use."""
    engine, request = _engine_of(lm, asynchronous)
    provider, _ = engine._target(request)
    return provider


def uses_litellm(lm: dspy.LM) -> bool:
    """Whether a plain chat call of this LM would go through LiteLLM, told by DSPy's own backend selection.

    Raises:
        ValueError, TypeError: no call of this LM can succeed.
    """
    from dspy.clients.engines.litellm_engine import LiteLLMEngine

    engine, _ = _engine_of(lm, asynchronous=False)
    return isinstance(engine, LiteLLMEngine)


# Under which names LiteLLM's price map keeps a provider's models.
_PRICED_AS = ("{}", "{}_converse", "{}_chat", "{}-language-models")


def has_price(lm: dspy.LM) -> bool:
    """Whether DSPy's price map has what the tokens of an LM's calls cost; without it `cost_usd` is null."""
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


def _engine_of(lm: dspy.LM, asynchronous: bool) -> tuple[Any, Any]:
    from dspy.clients.execution import _engine, prepare

    call = prepare(lm, None, [{"role": "user", "content": "?"}], {}, asynchronous=asynchronous)
    engine, request, _ = _engine(lm, call, asynchronous)
    return engine, request


def raised_by_parallel(traceback: TracebackType | None) -> bool:
    """Whether an exception was made by `dspy.Parallel` itself, which chains nothing to it."""
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback is not None and traceback.tb_frame.f_globals.get("__name__") == "dspy.utils.parallelizer"


def bound_provider_calls(bounds: ProviderBounds | None = None, *, core_share: float = 1.0) -> str | None:
    """Bound what every LM of this process asks of its provider: answers' sizes, their time in all, no late request.

    Call it once DSPy is imported, before the first LM call; again to change the bounds. Without `bounds` the defaults
    hold, for a process that has that share of a core.

    Returns:
        None; or what DSPy has changed, so that a part of the bounds does not apply.
    """
    try:
        from dspy_lambda import provider_bounds
    except ImportError as error:
        return f"DSPy has no {error.name}: {error}"
    defaults = provider_bounds.ProviderBounds()
    provider_bounds.use(bounds or replace(defaults, late_seconds=defaults.late_seconds / core_share))
    return _bound_once()


@functools.cache
def _bound_once() -> str | None:
    from dspy_lambda.provider_bounds import PATCHES

    return _put_all_in_place(PATCHES)


@functools.cache
def mend_best_of() -> str | None:
    """Keep the calls of `dspy.Refine` and `dspy.BestOfN` apart, and what they print out of the log.

    Returns:
        None; or what DSPy has changed, so that they are as they come.
    """
    from dspy.predict import best_of_n, refine

    from dspy_lambda.provider_bounds import Patch

    for module in (best_of_n, refine):  # what they print of a failed attempt is an exception's text
        module.print = logging.getLogger(module.__name__).warning
    best = Patch("dspy.predict.best_of_n", "BestOfN.forward", "self kwargs", _keep_apart)
    return _put_all_in_place([[best, Patch("dspy.predict.refine", "Refine.forward", "self kwargs", _keep_apart)]])


def _keep_apart(forward: Callable[..., Any]) -> Callable[..., Any]:
    """`forward` of both: on a copy for each call, and failed where the model failed every attempt.

    DSPy counts the failures that it tolerates down in the module itself: what one call used up, all later ones lack.
    And it returns None where all attempts failed within that count, which an outage's record would be done with.
    """
    from dspy_lambda.call import CALL

    def run(self: Any, **inputs: Any) -> Any:
        call = CALL.get()
        before = None if call is None else call.lm_error
        found = forward(copy.copy(self), **inputs)
        if found is None and call is not None and call.lm_error is not None and call.lm_error is not before:
            raise call.lm_error
        return found

    return run


def _put_all_in_place(rows: Iterable[Iterable[Patch]]) -> str | None:
    reasons = [reason for patches in rows if (reason := put_in_place(patches))]
    return "; ".join(reasons) or None


def put_in_place(patches: Iterable[Patch]) -> str | None:
    """Replace functions of DSPy's, all of them or none; the reason where it is none."""
    found = []
    for patch in patches:
        holder, _, name = patch.name.rpartition(".")
        try:
            module = importlib.import_module(patch.module)
            owner = getattr(module, holder) if holder else module
            original = getattr(owner, name)
            parameters = " ".join(inspect.signature(original).parameters)
        except (ImportError, AttributeError, TypeError, ValueError) as error:
            return f"{patch.module}.{patch.name}: {error}"
        replacement = functools.wraps(original)(patch.wrap(original))
        if parameters != patch.parameters:
            return f"{patch.module}.{patch.name} takes ({parameters}), not ({patch.parameters})"
        if inspect.iscoroutinefunction(original) != inspect.iscoroutinefunction(replacement):
            return f"{patch.module}.{patch.name} changed between async and sync"
        found.append((owner, name, replacement))
    for owner, name, replacement in found:
        setattr(owner, name, replacement)
    return None
