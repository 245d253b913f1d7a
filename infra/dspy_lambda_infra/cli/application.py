"""The typer application: its commands, in the order of `dspy-lambda --help`."""

from __future__ import annotations

from typing import Annotated

import typer

from dspy_lambda_infra.cli import show_version
from dspy_lambda_infra.cli.build import build
from dspy_lambda_infra.cli.deploy import deploy
from dspy_lambda_infra.cli.doctor import doctor
from dspy_lambda_infra.cli.invoke import invoke
from dspy_lambda_infra.cli.limits import limits
from dspy_lambda_infra.cli.local import local
from dspy_lambda_infra.cli.serve import serve
from dspy_lambda_infra.cli.template import template

# Plain help: rich's costs 0.25 s of CPU at each --help, and writes escape codes into a pipe on GitHub's runners.
app = typer.Typer(rich_markup_mode=None, context_settings={"help_option_names": ["-h", "--help"]})


def _version(wanted: bool) -> None:
    if wanted:
        show_version()


@app.callback()
def dspy_lambda(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version, DSPy's and Python's.")
    ] = False,
) -> None:
    """DSPy programs as AWS Lambda functions."""


for command in (local, invoke, serve, template, build, deploy, limits, doctor):
    app.command()(command)
