"""`dspy-lambda template`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dspy_lambda_infra.cli.options import Json, Project


def template(
    project: Project = Path("."),
    output: Annotated[Path, typer.Option(metavar="FILE", help="The file to write, or - for stdout.")] = Path(
        "template.yaml"
    ),
    as_json: Json = False,
) -> int:
    """Write a project's SAM template."""
    from dspy_lambda_infra.template.command import run_template

    return run_template(project, output, as_json=as_json)
