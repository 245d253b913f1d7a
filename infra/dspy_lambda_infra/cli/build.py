"""`dspy-lambda build`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from dspy_lambda_infra.cli.options import Function, Json, Project


def build(
    project: Project = Path("."),
    function: Function = None,
    python: Annotated[
        Literal["3.11", "3.12", "3.13", "3.14"] | None,
        typer.Option(help="The runtime's Python version (default: from the config)."),
    ] = None,
    architecture: Annotated[
        Literal["x86_64", "arm64"] | None, typer.Option(help="The processor architecture (default: from the config).")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The artifact's folder; for all functions, DIR/<logical id> (default: dist)."),
    ] = None,
    as_json: Json = False,
) -> int:
    """Build one function's artifact, or all of them."""
    from dspy_lambda_infra.artifact.command import run_build

    return run_build(project, function, output, python, architecture, as_json=as_json)
