"""The typer application and its commands, in the order of `dspy-lambda --help`."""

from __future__ import annotations

from typing import Annotated

import typer

from dspy_lambda_infra.cli.build import build
from dspy_lambda_infra.cli.deploy import deploy
from dspy_lambda_infra.cli.doctor import doctor
from dspy_lambda_infra.cli.invoke import invoke
from dspy_lambda_infra.cli.limits import limits
from dspy_lambda_infra.cli.local import local
from dspy_lambda_infra.cli.logs import logs
from dspy_lambda_infra.cli.serve import serve
from dspy_lambda_infra.cli.template import template
from dspy_lambda_infra.cli.trace import trace
from dspy_lambda_infra.cli.version import show_version

# Plain help: rich takes 0.25 s of CPU for each --help, and writes escape codes to pipes on GitHub's runners.
# typer's built-in flags are None when omitted, and it imports pydantic to coerce that, another 0.3 s.
_FLAGS = dict.fromkeys(("help", "install_completion", "show_completion"), False)
app = typer.Typer(
    rich_markup_mode=None, context_settings={"help_option_names": ["-h", "--help"], "default_map": _FLAGS}
)


def _version(wanted: bool) -> None:
    if wanted:
        show_version()


@app.callback()
def dspy_lambda(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Show the versions of dspy-lambda, DSPy and Python."
        ),
    ] = False,
) -> None:
    """DSPy programs as AWS Lambda functions."""


for command in (local, invoke, serve, template, build, deploy, logs, trace, limits, doctor):
    app.command()(command)
