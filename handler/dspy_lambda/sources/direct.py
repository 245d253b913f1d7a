"""Direct invocations: `{"program": ..., "inputs": {...}}` in, `{"program": ..., "outputs": {...}}` out."""

from __future__ import annotations

from typing import Any

from dspy_lambda.environment import Environment
from dspy_lambda.errors import InvalidInput, ProgramFailed
from dspy_lambda.payload import read_value
from dspy_lambda.programs import FailedProgram, Program
from dspy_lambda.sources.invocation import begin
from dspy_lambda.telemetry.calls import UNKNOWN


def recognise(event: dict[str, Any]) -> bool:
    """Whether an event is a direct one: `inputs`, with or without `program`, and nothing else."""
    return "inputs" in event and set(event) <= {"program", "inputs"}


def handle(environment: Environment, event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Run the call.

    Raises:
        CallError: under the name that Step Functions matches in Retry and Catch.
    """
    program = choose(environment, event.get("program"))
    name = program.name if program else UNKNOWN
    with (
        begin(environment, context, "direct") as invocation,
        invocation.call(name, program.model if program else None) as call,
    ):
        loaded = require(environment, event.get("program"), program)
        inputs = read_value(event["inputs"])
        outputs = environment.use_loop().run_until_complete(environment.dispatcher.run(loaded, inputs, call))
        return {"program": name, "outputs": outputs}


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
        raise ProgramFailed("The program could not be loaded; its state is under /programs.", status=503)
    return program
