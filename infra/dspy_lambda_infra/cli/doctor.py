"""`dspy-lambda doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dspy_lambda_infra.cli.options import Function, Json, Project


def doctor(
    cold_start: Annotated[
        bool, typer.Option("--cold-start", help="Start the built artifacts and measure the time.")
    ] = False,
    traces: Annotated[bool, typer.Option("--traces", help="Send an empty export to the traces' collectors.")] = False,
    project: Project = Path("."),
    function: Function = None,
    rounds: Annotated[int, typer.Option(min=1, max=100, help="How often to start each function.")] = 7,
    as_json: Json = False,
) -> int:
    """List the models that programs call, also those of LMs in code, and where their traces go; or time cold starts."""
    from dspy_lambda_infra.doctor.command import run_doctor

    return run_doctor(project, function, rounds, cold_start=cold_start, traces=traces, as_json=as_json)
