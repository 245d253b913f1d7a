"""LM calls and their requests: none after the deadline, none without a slot, each answer counted. For every LM.

An LM call is DSPy's `execute` or `aexecute`; it asks the provider once for each of its `n` candidates, and again where
that fails for a passing reason. Slots are inside of DSPy's cache: an answer that is remembered waits for nothing.
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
from dspy_lambda.deadline import DEADLINE, check_deadline, seconds_left
from dspy_lambda.dspy_patches.insides import default_read_timeout
from dspy_lambda.errors import CallError, DeadlineExceeded
from dspy_lambda.limits import aslot_of, slot_of, spend
from dspy_lambda.provider_bounds.times import Total
from dspy_lambda.soundness import wait_seconds
from dspy_lambda.telemetry.exceptions import meet

Function = Callable[..., Any]

# A program that ignores its failures and asks again would keep a CPU busy, and on the loop everybody else waiting.
_REFUSAL_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 60.0  # between two attempts, where the provider asks for no longer one; as DSPy has it


class _LMCall:
    """One call of an LM with all of its attempts and pauses: within its program call's deadline.

    Where the context has no deadline (a thread that a program began), an LM may know its call's.
    A class, not a generator with `contextmanager`: every LM call pays for it (measured: 1.1 us instead of 3.5).
    """

    __slots__ = ("_call", "_has_context")

    def __init__(self, lm: Any) -> None:
        meet(lm)
        self._call = call_of(lm)
        self._has_context = DEADLINE.get() is not None

    def __enter__(self) -> None:
        if not self._has_context:
            DEADLINE.set(getattr(getattr(self._call, "invocation", None), "deadline", None))

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> None:
        if not self._has_context:
            DEADLINE.set(None)  # not by a token: a coroutine may be closed in another context
        if isinstance(error, LMError) and isinstance(self._call, Call):
            self._call.lm_error = error


def bound_call(execute: Function) -> Function:
    """`execution.execute`. What it ends in is noted: an error that a retry made good was none."""

    def bounded(lm: Any, call: Any) -> Any:
        with _LMCall(lm):
            _refuse_late()
            return execute(lm, call)

    return bounded


def bound_call_on_loop(aexecute: Callable[..., Awaitable[Any]]) -> Function:
    """`execution.aexecute`."""

    async def bounded(lm: Any, call: Any) -> Any:
        with _LMCall(lm):
            await _arefuse_late()
            return await aexecute(lm, call)

    return bounded


def _refuse_late() -> None:
    if _is_late():
        time.sleep(_REFUSAL_SECONDS)
        raise _refusal()


async def _arefuse_late() -> None:
    if _is_late():
        await asyncio.sleep(_REFUSAL_SECONDS)
        raise _refusal()


def _is_late() -> bool:
    deadline = DEADLINE.get()
    return deadline is not None and time.monotonic() >= deadline


def _refusal() -> DeadlineExceeded:
    return DeadlineExceeded("The deadline has passed; no model is asked any more.")


def check_attempt(attempt: Function) -> Function:
    """`execution._attempt`: each attempt of each LM, whatever engine serves it.

    It is counted as abandoned where its answer is not read.
    """

    def bounded(lm: Any, *args: Any) -> Any:
        with slot_of(lm, DEADLINE.get()):
            _refuse_late()
            usage = usage_of(lm)
            with nullcontext() if usage is None else usage.awaiting(on_loop=False):
                return attempt(lm, *args)

    return bounded


def bound_attempt_on_loop(attempt: Callable[..., Awaitable[Any]]) -> Function:
    """`execution._aattempt`: the same, and its time in all, which ends any wait of any engine: it is cancelled."""

    async def bounded(lm: Any, call: Any, *args: Any) -> Any:
        async with aslot_of(lm, DEADLINE.get()):
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
    """An LM's `timeout`: seconds, an `httpx.Timeout`, or nothing."""
    # DSPy 3.5 is to drop `legacy` ("TODO(3.5)" in execution.py).
    options = getattr(call, "legacy", None) or {}
    timeout = options.get("timeout", getattr(lm, "kwargs", {}).get("timeout"))
    timeout = getattr(timeout, "read", timeout)
    return timeout if isinstance(timeout, int | float) and timeout > 0 else default_read_timeout()


def bound_delay(_: Function) -> Function:
    """`execution._delay`: the pause before a retry, during which no slot is held.

    DSPy honors any Retry-After: one of 0 would repeat the request at once, an hour's would sleep until Lambda's kill.
    So it is 1, 2, 4... s at least, with jitter on top, or what failed together would come back together; and one that
    would outlast the deadline ends in the error itself, at once.
    """

    def bounded(exc: Exception, attempt: int) -> float:
        least = min(2.0 ** min(attempt, 6), _LONGEST_PAUSE_SECONDS)
        asked = wait_seconds(getattr(exc, "retry_after", None)) or 0.0
        pause = max(asked, least) * random.uniform(1, 1.5)  # noqa: S311
        left = seconds_left()
        if left is not None and pause >= left:
            raise exc
        return pause

    return bounded


def count_failed(account: Function) -> Function:
    """`execution._account_failed_call`: of an LM call that failed in the end, what was answered until then is paid for.

    An LM call with `n` candidates fails as a whole where one of them does.
    """

    def counted(lm: Any, results: list[Any], primary: BaseException) -> None:
        account(lm, results, primary)
        usage = usage_of(lm)
        if not results:
            if usage is not None and isinstance(primary, LMUnexpectedError):
                usage.forget_cost()  # an answer that cannot be read, perhaps for its figures, is on the bill
            return
        if usage is not None:
            usage.add_failed([{"usage": result.usage, "cost": result.cost, "response": None} for result in results])
        spend(lm, sum(result.usage.get("total_tokens") or 0 for result in results))

    return counted


def keep_call_errors(wrap_error: Function) -> Function:
    """`errors.wrap_error`: DeadlineExceeded stays what it is; DSPy calls what it does not know LMUnexpectedError."""

    def kept(exc: Exception, **details: Any) -> Exception:
        if isinstance(exc, CallError):
            return exc
        wrapped: Exception = wrap_error(exc, **details)
        return wrapped

    return kept


def carry_context(submit: Function) -> Function:
    """`ThreadPoolExecutor.submit`: what a call hands to a pool runs with the call's LM, deadline and log fields.

    `dspy.Parallel`, `Module.batch` and `Evaluate` use such pools, too. Not so a thread that a program starts itself:
    it may live on, and work for later calls.
    """

    def carried(self: Any, fn: Function, /, *args: Any, **kwargs: Any) -> Any:
        if CALL.get() is None and DEADLINE.get() is None:
            return submit(self, fn, *args, **kwargs)
        return submit(self, contextvars.copy_context().run, fn, *args, **kwargs)

    return carried


def checked(function: Function) -> Function:
    """What asks a provider for something, by whatever client: not after the deadline."""

    def bounded(*args: Any, **options: Any) -> Any:
        check_deadline()
        return function(*args, **options)

    return bounded


def achecked(function: Callable[..., Awaitable[Any]]) -> Function:
    """The same on the loop. Of lm15's `_send_request`, `bound_attempt_on_loop` bounds the waits."""

    async def bounded(*args: Any, **options: Any) -> Any:
        check_deadline()
        return await function(*args, **options)

    return bounded
