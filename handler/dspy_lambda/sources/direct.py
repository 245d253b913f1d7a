"""Direct invocations: `{"program": ..., "inputs": {...}}` in, `{"program": ..., "outputs": {...}}` out."""

from __future__ import annotations

from typing import Any

from pydantic_core import from_json

from dspy_lambda.call import UNKNOWN, Call
from dspy_lambda.environment import Environment
from dspy_lambda.errors import DeadlineExceeded, InvalidInput, ProgramFailed
from dspy_lambda.invocation import Invocation
from dspy_lambda.payload import AnswerLimit, read_value
from dspy_lambda.programs.program import FailedProgram, Program
from dspy_lambda.quotas import MAX_ANSWER_BYTES
from dspy_lambda.runner import Runner
from dspy_lambda.sources.invocation import open_invocation

_AROUND_OUTPUTS = 500  # the program's name and the keys


def recognise(event: dict[str, Any]) -> bool:
    """Whether an event is a direct one: `inputs`, with or without `program`, and nothing else."""
    return "inputs" in event and set(event) <= {"program", "inputs"}


def begin(environment: Environment, event: dict[str, Any], context: Any) -> Invocation:
    """Its invocation."""
    limit = AnswerLimit(MAX_ANSWER_BYTES - _AROUND_OUTPUTS, as_text=False)
    return open_invocation(environment, context, "direct", answer_limit=limit)


def handle(
    environment: Environment, runner: Runner, event: dict[str, Any], context: Any, invocation: Invocation
) -> dict[str, Any]:
    """Run the call.

    Raises:
        CallError: under the name that Step Functions matches in Retry and Catch.
    """
    program = choose(environment, event.get("program"))
    with _call(environment, event, invocation) as call:
        loaded = require(environment, event.get("program"), program)
        inputs = read_value(event["inputs"])
        runner.use_loop().run_until_complete(runner.dispatcher.run(loaded, inputs, call))
    return _answer(call)


def late(environment: Environment, event: dict[str, Any], invocation: Invocation) -> dict[str, Any]:
    """The answer at the deadline, while the call's own thread stands still.

    Raises:
        CallError: the call's, which is DeadlineExceeded unless it had ended otherwise.
    """
    call = _call(environment, event, invocation)
    call.fail(DeadlineExceeded("The deadline came before the answer."))
    return _answer(call)


def _call(environment: Environment, event: dict[str, Any], invocation: Invocation) -> Call:
    program = choose(environment, event.get("program"))
    return invocation.call(program.name if program else UNKNOWN, program.model if program else None, position=0)


def _answer(call: Call) -> dict[str, Any]:
    return {"program": call.program, "outputs": from_json(call.outputs)}


def choose(environment: Environment, name: Any) -> Program | FailedProgram | None:
    """The program that an event or a record is for; without a name, the one that this function serves."""
    if name is None:
        return environment.only_program()
    return environment.find(name) if isinstance(name, str) else None


def require(environment: Environment, name: Any, program: Program | FailedProgram | None) -> Program:
    """The program, if it can be called.

    Raises:
        InvalidInput: no such program here, or none named and several served.
        ProgramFailed: it could not be loaded.
    """
    if program is None:
        served = ", ".join(sorted([*environment.programs, *environment.failed]))
        wrong = "No program is named" if name is None else "This function serves no program of that name"
        raise InvalidInput(f"{wrong}; it serves: {served}.", status=404)
    if isinstance(program, FailedProgram):
        failed = ProgramFailed("The program could not be loaded; its state is under /programs.", status=503)
        raise failed from program.cause
    return program
