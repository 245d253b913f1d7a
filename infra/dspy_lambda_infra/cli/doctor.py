"""`dspy-lambda doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dspy_lambda_infra.cli.options import Function, Json, Project


def doctor(
    cold_start: Annotated[bool, typer.Option("--cold-start", help="Start the built artifacts, and time it.")] = False,
    project: Project = Path("."),
    function: Function = None,
    rounds: Annotated[int, typer.Option(min=1, max=100, help="How often each function is started.")] = 7,
    as_json: Json = False,
) -> int:
    """Show where a cold start's time goes."""
    if not cold_start:
        raise typer.BadParameter("say what to look at", param_hint="--cold-start")
    from dspy_lambda_infra.doctor.command import run_doctor

    return run_doctor(project, function, rounds, as_json=as_json)
