"""One invocation, from the main thread: hand the event over, wait until the deadline, and answer in any case."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from dspy_lambda.environment import Environment
from dspy_lambda.runner import Runner
from dspy_lambda.sources import Source, recognise
from dspy_lambda.telemetry import Invocation

# The runner answers at the deadline itself; this part of the reserve is how long it may take for that.
_PART_OF_RESERVE = 0.5
# While the late answer is made no other thread may take the interpreter from it, which each of a hundred busy ones
# would do every 5 ms.
_UNDISTURBED_SECONDS = 1.0


def invoke(environment: Environment, event: Any, context: Any) -> Any:
    """Answer one event of any source, whatever its program does.

    Raises:
        UnknownEvent: no source recognises the event.
        CallError: a direct invocation's call failed; see `dspy_lambda.errors` for the names.
    """
    source = recognise(event)
    environment.process.note()
    with source.begin(environment, event, context) as invocation:
        environment.arm(invocation)
        try:
            return _answer(environment, source, event, context, invocation)
        finally:
            environment.after_invocation()


def _answer(environment: Environment, source: Source, event: Any, context: Any, invocation: Invocation) -> Any:
    runner = environment.fresh_runner(invocation)
    job = runner.start(lambda: _run(environment, runner, source, event, context, invocation))
    assert invocation.deadline is not None
    until = invocation.deadline + (invocation.closes - invocation.deadline) * _PART_OF_RESERVE
    if environment.watch.wait(job, runner, invocation, until):
        return job.result()
    environment.disarm()
    try:
        with environment.telemetry.held_together(), _undisturbed():
            environment.watch.report(runner, invocation)
            environment.give_up_runner()
            return source.late(environment, event, invocation)
    finally:
        invocation.wait_for_records()


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Keep the interpreter's lock: nothing in the block may wait, or all others would have it that long first."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(_UNDISTURBED_SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)


def _run(
    environment: Environment, runner: Runner, source: Source, event: Any, context: Any, invocation: Invocation
) -> Any:
    """The runner's part."""
    environment.before_invocation(runner)
    try:
        return source.handle(environment, runner, event, context, invocation)
    finally:
        with suppress(RuntimeError):  # a loop that a program closed has nothing left
            if left := runner.loop.end_invocation():
                environment.telemetry.log("WARNING", "left behind by a program", {"tasks": left})
