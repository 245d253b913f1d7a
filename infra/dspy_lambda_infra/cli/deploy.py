"""`dspy-lambda deploy`."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from dspy_lambda_infra.cli.options import Json, Project


def _matching(pattern: str, rule: str) -> Callable[[Any], Any]:
    """Return a callback that rejects values, or items of a list, that SAM could not parse."""

    def check(value: Any) -> Any:
        for text in value if isinstance(value, list) else [value] if value is not None else []:
            if not re.fullmatch(pattern, text):
                raise typer.BadParameter(rule)
        return value

    return check


_word = _matching(r"[A-Za-z0-9_.+@-]+", "letters, digits and _ . + @ - only")
_stage = _matching(r"[A-Za-z0-9_-]{1,32}", "1 to 32 letters, digits, _ and - only")
_pairs = _matching(r"[A-Za-z0-9]+=[^\s,\"']+", "must be KEY=VALUE, without whitespace, commas or quotes")


def deploy(
    project: Project = Path("."),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show it: write, build and upload nothing.")] = False,
    template: Annotated[Path, typer.Option(metavar="FILE", help="The template's file.")] = Path("template.yaml"),
    stack_name: Annotated[str | None, typer.Option(metavar="NAME", help="(default: <app_id>-<stage>)")] = None,
    region: Annotated[
        str | None, typer.Option(metavar="NAME", help="The AWS Region (default: from the AWS profile).")
    ] = None,
    stage: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", callback=_stage, help="The stage (default: the deployed stack's, otherwise prod)."
        ),
    ] = None,
    alarm_email: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", callback=_word, help="The email address for alarms (default: as deployed)."),
    ] = None,
    reserve_concurrency: Annotated[
        Literal["true", "false"] | None,
        typer.Option(
            help="Whether functions reserve concurrency (default: as deployed, otherwise if the quota allows it)."
        ),
    ] = None,
    api_access_log: Annotated[
        Literal["none", "account-role", "new-role"] | None,
        typer.Option(
            help="A REST API's access log (default: as deployed, otherwise on if the account has a log role)."
        ),
    ] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE", callback=_pairs, help="A parameter from template.extra.yaml; can be repeated."
        ),
    ] = None,
    secrets_version: Annotated[
        str | None,
        typer.Option(
            metavar="WORD", callback=_word, help="Any new value after rotating a secret, to restart environments."
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Execute the change set without asking.")] = False,
    as_json: Json = False,
) -> int:
    """Show what a deployment would do and cost, then deploy with SAM."""
    from dspy_lambda_infra.deploy.command import run_deploy
    from dspy_lambda_infra.deploy.parameters import Options

    parameters = dict(pair.split("=", 1) for pair in parameter or [])
    options = Options(stage, stack_name, alarm_email, reserve_concurrency, api_access_log, secrets_version, parameters)
    return run_deploy(project, template, options, region=region, dry_run=dry_run, yes=yes, as_json=as_json)
