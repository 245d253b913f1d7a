"""Fan-outs and retries of synchronous modules, in threads of their own."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from contextvars import copy_context
from functools import partial
from typing import Any, TypeVar, overload

from dspy_lambda.deadline import check_deadline, seconds_left
from dspy_lambda.patterns.limits import DEFAULT, THREE_ATTEMPTS, Limits
from dspy_lambda.patterns.on_loop import keyed
from dspy_lambda.patterns.outcomes import Outcomes, Tally
from dspy_lambda.threads import Threads

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


@overload
def fan_out_sync(modules: Mapping[K, Callable[..., T]], limits: Limits = ..., /, **inputs: Any) -> Outcomes[K, T]: ...
@overload
def fan_out_sync(modules: Sequence[Callable[..., T]], limits: Limits = ..., /, **inputs: Any) -> Outcomes[int, T]: ...
def fan_out_sync(modules: Any, limits: Limits = DEFAULT, /, **inputs: Any) -> Outcomes[Any, Any]:
    """Call several modules with the same inputs, each in a thread that has the caller's context.

    Unlike `dspy.Parallel`, it returns in time, and says of each failure what it was. A thread cannot be canceled: one
    that is still running then is abandoned. Within a call of dspy-lambda, its LM calls end at that time, too.

    Args:
        modules: `dspy.Module`s or functions, as a sequence or by name.
        limits: how many at once, until when, and how often.
        inputs: passed to each module.

    Returns:
        Answers and failures, by name or position.
    """
    return _gather({key: partial(module, **inputs) for key, module in keyed(modules).items()}, limits)


@overload
def map_inputs_sync(
    module: Callable[..., T], inputs: Mapping[K, Mapping[str, Any]], limits: Limits = ..., /
) -> Outcomes[K, T]: ...
@overload
def map_inputs_sync(
    module: Callable[..., T], inputs: Sequence[Mapping[str, Any]], limits: Limits = ..., /
) -> Outcomes[int, T]: ...
def map_inputs_sync(module: Any, inputs: Any, limits: Limits = DEFAULT, /) -> Outcomes[Any, Any]:
    """Call one module with several inputs; otherwise as `fan_out_sync`.

    Args:
        module: a `dspy.Module` or a function.
        inputs: the keyword arguments of each call, as a sequence or by name.
        limits: how many at once, until when, and how often.
    """
    return _gather({key: partial(module, **values) for key, values in keyed(inputs).items()}, limits)


def retry_sync(module: Callable[..., T], limits: Limits = THREE_ATTEMPTS, /, **inputs: Any) -> T:
    """Call a module; after a transient error call it again, as long as the deadline leaves time.

    Raises:
        Exception: The error of the last attempt.
        DeadlineExceeded: The deadline passed before an attempt could start.
    """
    with limits.applied():
        return _attempt(partial(module, **inputs), limits)


def _attempt(call: Callable[[], T], limits: Limits) -> T:
    attempt = 1
    while True:
        check_deadline()
        try:
            return call()
        except Exception as error:
            pause = limits.pause_after(attempt, error)
            if pause is None:
                raise
        time.sleep(pause)
        attempt += 1


def _gather(calls: Mapping[K, Callable[[], T]], limits: Limits) -> Outcomes[K, T]:
    tally: Tally[K, T] = Tally(calls)
    # Their own: in the pool of the programs, a program that waits for its fan-out could wait for itself.
    threads = Threads(min(limits.parallel, len(calls)), "fan-out")
    futures: list[Future[None]] = []
    with limits.applied():
        try:
            for key, call in calls.items():
                futures.append(threads.submit(copy_context().run, _run, key, call, limits, tally))
            wait(futures, timeout=seconds_left(), return_when=FIRST_EXCEPTION)
        finally:
            threads.abandon()
    for future in futures:
        if future.done() and not future.cancelled():
            future.result()  # raises KeyboardInterrupt and SystemExit
    return tally.outcomes()


def _run(key: K, call: Callable[[], T], limits: Limits, tally: Tally[K, T]) -> None:
    try:
        check_deadline()
        tally.start(key)
        tally.answer(key, _attempt(call, limits))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        tally.fail(key, error)
