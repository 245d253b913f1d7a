"""LM calls and their requests: none after the deadline, none without a slot, and every answer counted, for every LM.

An LM call is DSPy's `execute` or `aexecute`. It sends one request for each of its `n` candidates, and retries
transient failures. Slots are taken behind DSPy's cache, so a cached answer waits for nothing.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from functools import partial
from types import TracebackType
from typing import Any

from dspy.utils.exceptions import LMError, LMUnexpectedError

from dspy_lambda.call import CALL, Call, call_of, usage_of
from dspy_lambda.deadline import DEADLINE, check_deadline, is_late, seconds_left
from dspy_lambda.dspy_patches.insides import default_read_timeout
from dspy_lambda.dspy_patches.patch import Function
from dspy_lambda.errors import CallError, DeadlineExceeded
from dspy_lambda.limits import aslot_of, slot_of, spend
from dspy_lambda.models.prices import apply_price
from dspy_lambda.models.stage import STAGE
from dspy_lambda.provider_bounds.times import Total
from dspy_lambda.soundness import wait_seconds
from dspy_lambda.telemetry.exceptions import remember_key
from dspy_lambda.telemetry.traces.spans import note

# A program that ignores the error and tries again in a loop would keep a CPU busy and, on the loop, block all others.
_REFUSAL_SECONDS = 0.05
_MAX_PAUSE_SECONDS = 60.0  # between attempts, unless the provider asks for a longer pause; DSPy's own value


class _LMCall:
    """Keeps one LM call, with all of its attempts and pauses, within its program call's deadline.

    In a thread that a program started, the context has no deadline; the LM may know its call's.
    A class instead of a `contextmanager` generator because every LM call pays for it (measured: 1.1 us, not 3.5).
    """

    __slots__ = ("_call", "_has_context")

    def __init__(self, lm: Any) -> None:
        remember_key(lm)
        self._call = call_of(lm)
        self._has_context = DEADLINE.get() is not None

    def __enter__(self) -> None:
        if not self._has_context:
            DEADLINE.set(getattr(getattr(self._call, "invocation", None), "deadline", None))

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> None:
        if not self._has_context:
            DEADLINE.set(None)  # no token: a coroutine may be closed in another context
        if isinstance(error, LMError) and isinstance(self._call, Call):
            self._call.lm_error = error


def bound_call(execute: Function) -> Function:
    """Wrap `execution.execute`. Records only the final error: one that a retry recovered from does not count."""

    def bounded(lm: Any, call: Any) -> Any:
        with _LMCall(lm):
            _refuse_late()
            return execute(lm, call)

    return bounded


def bound_call_on_loop(aexecute: Callable[..., Awaitable[Any]]) -> Function:
    """Wrap `execution.aexecute`."""

    async def bounded(lm: Any, call: Any) -> Any:
        with _LMCall(lm):
            await _arefuse_late()
            return await aexecute(lm, call)

    return bounded


def _refuse_late() -> None:
    if is_late():
        time.sleep(_REFUSAL_SECONDS)
        raise _refusal()


async def _arefuse_late() -> None:
    if is_late():
        await asyncio.sleep(_REFUSAL_SECONDS)
        raise _refusal()


def _refusal() -> DeadlineExceeded:
    return DeadlineExceeded("The deadline has passed; no more model calls are made.")


def check_attempt(attempt: Function) -> Function:
    """Wrap `execution._attempt`: each attempt of each LM, on any engine.

    An attempt whose answer is never read counts as abandoned.
    """

    def bounded(lm: Any, call: Any, *args: Any) -> Any:
        with slot_of(lm, call, DEADLINE.get()):
            _refuse_late()
            usage = usage_of(lm)
            with nullcontext() if usage is None else usage.awaiting(on_loop=False):
                return attempt(lm, call, *args)

    return bounded


def bound_attempt_on_loop(attempt: Callable[..., Awaitable[Any]]) -> Function:
    """Wrap `execution._aattempt`: as `check_attempt`, and cancel the attempt, on any engine, at its total time."""

    async def bounded(lm: Any, call: Any, *args: Any) -> Any:
        async with aslot_of(lm, call, DEADLINE.get()):
            await _arefuse_late()
            usage = usage_of(lm)
            with nullcontext() if usage is None else usage.awaiting(on_loop=True):
                return await _in_time(Total(_read_timeout(lm, call)), partial(attempt, lm, call, *args))

    return bounded


async def _in_time(total: Total, attempt: Callable[[], Awaitable[Any]]) -> Any:
    try:
        async with asyncio.timeout(total.left()) as scope:
            return await attempt()
    except TimeoutError:
        if scope.expired():
            raise total.expired() from None
        raise


def _read_timeout(lm: Any, call: Any) -> float:
    """Return an LM's read timeout in seconds; `timeout` may be a number, an `httpx.Timeout` or absent."""
    # DSPy 3.5 will drop `legacy` ("TODO(3.5)" in execution.py).
    options = getattr(call, "legacy", None) or {}
    timeout = options.get("timeout", getattr(lm, "kwargs", {}).get("timeout"))
    timeout = getattr(timeout, "read", timeout)
    return timeout if isinstance(timeout, int | float) and timeout > 0 else default_read_timeout()


def bound_delay(_: Function) -> Function:
    """Wrap `execution._delay`: DSPy honors any Retry-After, so it would sleep for an hour, or retry at once with 0."""
    return lambda exc, attempt: pause_before_retry(exc, attempt)


def pause_before_retry(error: Exception, attempt: int) -> float:
    """Return the seconds to wait before a retry, during which no slot is held.

    At least 1, 2, 4... s plus jitter, so that requests that failed together do not retry together.

    Raises:
        Exception: `error` itself, at once, if the pause would outlast the deadline or another model is asked instead.
    """
    least = min(2.0 ** min(attempt, 6), _MAX_PAUSE_SECONDS)
    asked = wait_seconds(getattr(error, "retry_after", None)) or 0.0
    stage = STAGE.get()
    if stage is not None and stage.skips_pause(error, asked, least):
        raise error
    pause = max(asked, least) * random.uniform(1, 1.5)  # noqa: S311
    left = seconds_left()
    if left is not None and pause >= left:
        raise error
    if (call := CALL.get()) is not None:
        call.usage.retried()
    return pause


def count_failed(account: Function) -> Function:
    """Wrap `execution._account_failed_call`: count the answers that a failed LM call had received.

    An LM call with `n` candidates fails if any of them fails; the answered ones are billed nevertheless.
    """

    def counted(lm: Any, results: list[Any], primary: BaseException) -> None:
        account(lm, results, primary)
        usage = usage_of(lm)
        if not results:
            if usage is not None and isinstance(primary, LMUnexpectedError):
                usage.forget_cost()  # an answer was billed, but it could not be parsed, perhaps not even its usage
            return
        if usage is not None:
            entries = [{"usage": result.usage, "cost": result.cost, "response": None} for result in results]
            note(usage.add_failed([apply_price(lm, entry) for entry in entries]))
        spend(lm, sum(result.usage.get("total_tokens") or 0 for result in results))

    return counted


def keep_call_errors(wrap_error: Function) -> Function:
    """Wrap `errors.wrap_error`: keep DeadlineExceeded, which DSPy would turn into an LMUnexpectedError."""

    def kept(exc: Exception, **details: Any) -> Exception:
        if isinstance(exc, CallError):
            return exc
        wrapped: Exception = wrap_error(exc, **details)
        return wrapped

    return kept


def carry_context(submit: Function) -> Function:
    """Wrap `ThreadPoolExecutor.submit`: run what a call submits with the call's LM, deadline and log fields.

    `dspy.Parallel`, `Module.batch` and `Evaluate` use such pools. A thread that a program starts directly gets no
    context: it may outlive the call and work for later ones.
    """

    def carried(self: Any, fn: Function, /, *args: Any, **kwargs: Any) -> Any:
        if CALL.get() is None and DEADLINE.get() is None:
            return submit(self, fn, *args, **kwargs)
        return submit(self, contextvars.copy_context().run, fn, *args, **kwargs)

    return carried


def checked(function: Function) -> Function:
    """Wrap a function that sends a provider request, so that it sends none after the deadline."""

    def bounded(*args: Any, **options: Any) -> Any:
        check_deadline()
        return function(*args, **options)

    return bounded


def achecked(function: Callable[..., Awaitable[Any]]) -> Function:
    """Wrap a coroutine function as `checked` does. `bound_attempt_on_loop` limits the waits of lm15's requests."""

    async def bounded(*args: Any, **options: Any) -> Any:
        check_deadline()
        return await function(*args, **options)

    return bounded
