"""Direct invocations: `{"program": ..., "inputs": {...}}` in, `{"program": ..., "outputs": {...}}` out."""

from __future__ import annotations

from typing import Any

from pydantic_core import from_json

from dspy_lambda.call import UNKNOWN, Call
from dspy_lambda.environment import Environment
from dspy_lambda.errors import cut_off
from dspy_lambda.invocation import Invocation, open_invocation
from dspy_lambda.payload import AnswerLimit, read_value
from dspy_lambda.quotas import MAX_ANSWER_BYTES
from dspy_lambda.runner import Runner

_AROUND_OUTPUTS = 500  # the program's name and the keys


def begin(environment: Environment, event: dict[str, Any], context: Any) -> Invocation:
    """Create the event's invocation."""
    limit = AnswerLimit(MAX_ANSWER_BYTES - _AROUND_OUTPUTS, as_text=False)
    return open_invocation(environment, context, "direct", answer_limit=limit)


def handle(
    environment: Environment, runner: Runner, event: dict[str, Any], context: Any, invocation: Invocation
) -> dict[str, Any]:
    """Run the call.

    Raises:
        CallError: The call failed. Step Functions matches the class name in Retry and Catch.
    """
    program = environment.served.choose(event.get("program"))
    with _call(environment, event, invocation) as call:
        loaded = environment.served.require(event.get("program"), program)
        inputs = read_value(event["inputs"])
        runner.use_loop().run_until_complete(runner.dispatcher.run(loaded, inputs, call))
    return _answer(call)


def late(environment: Environment, event: dict[str, Any], invocation: Invocation) -> dict[str, Any]:
    """Answer at the deadline, while the call's own thread is blocked.

    Raises:
        CallError: The call's error, which is DeadlineExceeded unless the call ended before.
    """
    call = _call(environment, event, invocation)
    call.fail(cut_off())
    return _answer(call)


def _call(environment: Environment, event: dict[str, Any], invocation: Invocation) -> Call:
    program = environment.served.choose(event.get("program"))
    return invocation.call(program.name if program else UNKNOWN, program.model if program else None, position=0)


def _answer(call: Call) -> dict[str, Any]:
    return {"program": call.program, "outputs": from_json(call.outputs)}
