"""One invocation in the main thread: pass the event to the runner, wait until the deadline, and always answer."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

from dspy_lambda.environment import Environment
from dspy_lambda.invocation import Invocation
from dspy_lambda.runner import Job, Runner
from dspy_lambda.sources import Source, recognize

# After the deadline, each of a hundred busy threads could hold the interpreter's lock for 5 ms before this thread's
# turn. Setting a long interval while this thread holds the lock does not help: threads that already wait still use the
# old interval, and this thread then waits by the new one.
_IMPATIENT_SECONDS = 0.0002


def invoke(environment: Environment, event: Any, context: Any) -> Any:
    """Answer one event from any source, whatever its program does.

    Raises:
        UnknownEvent: No source recognizes the event.
        CallError: A direct invocation's call failed; see `dspy_lambda.errors` for the names.
    """
    source = recognize(event)
    environment.begin()
    collects = gc.isenabled()
    try:
        with source.begin(environment, event, context) as invocation:
            environment.arm(invocation)
            if (tracer := environment.telemetry.tracer) is not None:
                tracer.begin(invocation, event, context, os.environ)
            try:
                return _answer(environment, source, event, context, invocation)
            finally:
                environment.after_invocation(invocation)
    finally:
        environment.disarm()
        if collects:
            gc.enable()
        environment.telemetry.before_answer(context)


def _answer(environment: Environment, source: Source, event: Any, context: Any, invocation: Invocation) -> Any:
    runner = environment.runners.fresh(invocation)
    job = runner.start(lambda: _run(environment, runner, source, event, context, invocation))
    assert invocation.deadline is not None
    in_time = environment.watch.wait(job, runner, invocation, invocation.deadline)
    with _switching_every(_IMPATIENT_SECONDS) if not in_time else nullcontext():
        in_time = in_time or environment.watch.wait(job, runner, invocation, invocation.answer_by)
        # The garbage collector could run a program's finalizer in this thread, which must answer.
        gc.disable()
        return job.result() if in_time else _answer_late(environment, source, event, invocation, job, runner)


def _answer_late(
    environment: Environment, source: Source, event: Any, invocation: Invocation, job: Job, runner: Runner
) -> Any:
    environment.disarm()
    is_blocked = environment.watch.is_blocked(job, runner)
    try:
        with environment.telemetry.held_together():
            if is_blocked:
                environment.watch.report(runner, invocation)
            environment.runners.abandon_current()
            return source.late(environment, event, invocation)
    finally:
        invocation.wait_for_records()


@contextmanager
def _switching_every(seconds: float) -> Iterator[None]:
    """Set how long a thread may hold the interpreter's lock while others wait for it."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(seconds)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)


def _run(
    environment: Environment, runner: Runner, source: Source, event: Any, context: Any, invocation: Invocation
) -> Any:
    """Handle the event in the runner's thread."""
    environment.before_invocation(runner)
    try:
        return source.handle(environment, runner, event, context, invocation)
    finally:
        with suppress(RuntimeError):  # a loop that a program closed has no tasks left
            if left := runner.loop.end_invocation():
                environment.telemetry.log("WARNING", "canceled unfinished background tasks", {"tasks": left})
