"""Fan-outs and retries on the running event loop."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar, overload

from dspy_lambda.deadline import check_deadline, seconds_left
from dspy_lambda.patterns.limits import DEFAULT, THREE_ATTEMPTS, Limits
from dspy_lambda.patterns.outcomes import Outcomes, Tally

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
# How long canceled calls get to close what they use; one that ignores its cancellation is left to itself.
_CANCEL_SECONDS = 0.1


class AsyncModule(Protocol[T_co]):
    """A `dspy.Module`, or what is called like one."""

    def acall(self, **inputs: Any) -> Awaitable[T_co]: ...


_Callable = AsyncModule[T] | Callable[..., Awaitable[T]]


@overload
async def fan_out(modules: Mapping[K, _Callable[T]], limits: Limits = ..., /, **inputs: Any) -> Outcomes[K, T]: ...
@overload
async def fan_out(modules: Sequence[_Callable[T]], limits: Limits = ..., /, **inputs: Any) -> Outcomes[int, T]: ...
async def fan_out(modules: Any, limits: Limits = DEFAULT, /, **inputs: Any) -> Outcomes[Any, Any]:
    """Call several modules with the same inputs.

    Unlike with `asyncio.gather`, one failure neither loses nor outlives the other calls; no more than `limits.parallel`
    run at once; and what has not ended in time is canceled and described. A module that has only `forward` runs in a
    thread, whose LM calls end by then.

    Args:
        modules: `dspy.Module`s or async functions, as a sequence or by name.
        limits: how many at once, until when, and how often.
        inputs: passed to each module.

    Returns:
        Answers and failures, by name or position.
    """
    return await _gather({key: partial(_call, module, inputs) for key, module in keyed(modules).items()}, limits)


@overload
async def map_inputs(
    module: _Callable[T], inputs: Mapping[K, Mapping[str, Any]], limits: Limits = ..., /
) -> Outcomes[K, T]: ...
@overload
async def map_inputs(
    module: _Callable[T], inputs: Sequence[Mapping[str, Any]], limits: Limits = ..., /
) -> Outcomes[int, T]: ...
async def map_inputs(module: Any, inputs: Any, limits: Limits = DEFAULT, /) -> Outcomes[Any, Any]:
    """Call one module with several inputs; otherwise as `fan_out`.

    Args:
        module: a `dspy.Module` or an async function.
        inputs: the keyword arguments of each call, as a sequence or by name.
        limits: how many at once, until when, and how often.
    """
    return await _gather({key: partial(_call, module, values) for key, values in keyed(inputs).items()}, limits)


async def retry(module: _Callable[T], limits: Limits = THREE_ATTEMPTS, /, **inputs: Any) -> T:
    """Call a module; after a transient error call it again, as long as the deadline leaves time.

    Raises:
        Exception: The error of the last attempt.
        DeadlineExceeded: The deadline passed before an attempt could start.
    """
    with limits.applied():
        return await _attempt(partial(_call, module, inputs), limits)


def keyed(values: Mapping[Any, Any] | Sequence[Any]) -> Mapping[Any, Any]:
    """Return the values by key, or by position if they are a sequence."""
    return values if isinstance(values, Mapping) else dict(enumerate(values))


async def _call(module: Any, inputs: Mapping[str, Any]) -> Any:
    dspy = sys.modules.get("dspy")
    if dspy is None or not isinstance(module, dspy.Module):
        return await getattr(module, "acall", module)(**inputs)
    from dspy_lambda.programs.program import choose_entry

    entry = choose_entry(module)
    return await (entry.start(module, dict(inputs)) if entry.is_async else asyncio.to_thread(module, **inputs))


async def _attempt(call: Callable[[], Awaitable[T]], limits: Limits) -> T:
    attempt = 1
    while True:
        check_deadline()
        try:
            return await call()
        except Exception as error:
            pause = limits.pause_after(attempt, error)
            if pause is None:
                raise
        await asyncio.sleep(pause)
        attempt += 1


async def _gather(calls: Mapping[K, Callable[[], Awaitable[T]]], limits: Limits) -> Outcomes[K, T]:
    tally: Tally[K, T] = Tally(calls)
    slots = asyncio.Semaphore(limits.parallel)
    with limits.applied():
        tasks = [asyncio.create_task(_run(key, call, limits, slots, tally)) for key, call in calls.items()]
        try:
            if tasks:
                await asyncio.wait(tasks, timeout=seconds_left(), return_when=asyncio.FIRST_EXCEPTION)
        finally:
            await _cancel(tasks)
    for task in tasks:
        if task.done() and not task.cancelled():
            task.result()  # raises KeyboardInterrupt and SystemExit
    return tally.outcomes()


async def _run(
    key: K, call: Callable[[], Awaitable[T]], limits: Limits, slots: asyncio.Semaphore, tally: Tally[K, T]
) -> None:
    task = asyncio.current_task()
    assert task is not None
    try:
        async with slots:
            check_deadline()
            tally.start(key)
            tally.answer(key, await _attempt(call, limits))
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        if isinstance(error, asyncio.CancelledError) and task.cancelling():
            raise
        tally.fail(key, error)


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    unfinished = [task for task in tasks if not task.done()]
    for task in unfinished:
        task.cancel()
    if unfinished:
        await asyncio.wait(unfinished, timeout=_CANCEL_SECONDS)
