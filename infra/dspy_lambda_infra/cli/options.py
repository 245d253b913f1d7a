"""Options shared by several commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dspy_lambda_infra.cli.completion import complete_program

Project = Annotated[Path, typer.Option(metavar="DIR", help="The DSPy project's folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
Function = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", autocompletion=complete_program, help="A program or its function's logical id (default: all)."
    ),
]
ModelServer = Annotated[
    bool, typer.Option("--model-server", help="Answer all model calls from an embedded server: no key, no cost.")
]
NoLimits = Annotated[bool, typer.Option("--no-limits", help="Do not limit functions to their memory and CPU share.")]
Reload = Annotated[bool, typer.Option("--reload", help="Restart when a file of the project changes.")]
Stack = Annotated[str | None, typer.Option(metavar="NAME", help="Read a deployed stack from CloudWatch.")]
Region = Annotated[str | None, typer.Option(metavar="NAME", help="The AWS Region (default: from the AWS profile).")]


def parse_moment(text: str | None, option: str) -> float | None:
    """Return the option's time in seconds since the epoch; None if it is not given.

    Raises:
        typer.BadParameter: it is not a time.
    """
    from dspy_lambda_infra.moments import moment

    try:
        return None if text is None else moment(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None
