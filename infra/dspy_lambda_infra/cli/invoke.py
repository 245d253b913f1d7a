"""`dspy-lambda invoke`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dspy_lambda_infra.cli.completion import complete_program
from dspy_lambda_infra.cli.options import ModelServer, NoLimits, Project


def invoke(
    program: Annotated[
        str | None,
        typer.Argument(
            metavar="PROGRAM",
            autocompletion=complete_program,
            help="The program to call (default: one function that serves all).",
        ),
    ] = None,
    bare_inputs: Annotated[
        str | None,
        typer.Argument(metavar="INPUTS", help="The program's inputs: a JSON object, a file with one, or - for stdin."),
    ] = None,
    event: Annotated[
        str | None, typer.Option(metavar="FILE", help="An AWS event as a JSON file, or - for stdin.")
    ] = None,
    inputs: Annotated[str | None, typer.Option(metavar="JSON", help="The same as INPUTS.")] = None,
    project: Project = Path("."),
    model_server: ModelServer = False,
    no_limits: NoLimits = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer unformatted, even on a terminal.")] = False,
) -> int:
    """Run one event in one execution environment."""
    if sum(source is not None for source in (bare_inputs, inputs, event)) != 1:
        raise typer.BadParameter("give exactly one of them", param_hint=["INPUTS", "--inputs", "--event"])
    from dspy_lambda_infra.local.command import run_invoke

    return run_invoke(
        project,
        program,
        event=event,
        inputs=bare_inputs if inputs is None else inputs,
        model_server=model_server,
        limit_resources=not no_limits,
        as_json=as_json,
    )
