"""`dspy-lambda trace`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dspy_lambda_infra.cli.options import Project, Region, Stack, parse_moment


def trace(
    id_: Annotated[
        str | None,
        typer.Argument(
            metavar="ID",
            help="A request id, SQS message id, correlation id or trace id. Of the first three, 8 characters suffice, "
            "except with --stack.",
        ),
    ] = None,
    last: Annotated[bool, typer.Option("--last", help="The most recent call.")] = False,
    follow: Annotated[bool, typer.Option("--follow", help="Each call that ends from now on, until Ctrl-C.")] = False,
    file: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="A file of OTLP in JSON, as the OpenTelemetry Collector's file exporter writes it, or - for stdin "
            "(default: what is piped, otherwise the project's running `dspy-lambda local`).",
        ),
    ] = None,
    stack: Stack = None,
    region: Region = None,
    project: Project = Path("."),
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="With --stack: how far to look back, such as 15m, 2d or an ISO time (default: 3h)."
        ),
    ] = None,
    payloads: Annotated[
        bool,
        typer.Option("--payloads", help="Also show inputs, outputs and messages (telemetry.payloads must write them)."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the spans as one line of JSON for each call.")] = False,
) -> int:
    """Show one call as a tree of its steps: when each ran, and its tokens, cost, model, attempts and errors.

    Bars share one time axis; a mark before a name means that another step of the same parent ran at the same time.
    The spans come from the local Lambda, from a file, or from CloudWatch's log group aws/spans, where Transaction
    Search keeps them; reading that requires cloudformation:ListStackResources and logs:FilterLogEvents.

    \b
    Examples:
      dspy-lambda trace --last
      dspy-lambda trace 8f2b7a54-5f0e-4d55-9d53-0c7d5a4f7a11 --payloads
      dspy-lambda trace --follow
      dspy-lambda trace 8f2b7a54 --file traces.jsonl
      dspy-lambda trace 1-6930a1b2-0123456789abcdef01234567 --stack qa-prod --since 2d
    """
    from dspy_lambda_infra.traces.command import Options, run_trace

    if sum((id_ is not None, last, follow)) != 1:
        raise typer.BadParameter("give exactly one of them", param_hint=["ID", "--last", "--follow"])
    if stack is not None and file is not None:
        raise typer.BadParameter("give only one of them", param_hint=["--file", "--stack"])
    if follow and file == "-":
        raise typer.BadParameter("standard input cannot be followed", param_hint="--follow")
    options = Options(
        project=project,
        file=file,
        stack=stack,
        region=region,
        since=parse_moment(since, "--since"),
        payloads=payloads,
        as_json=as_json,
    )
    return run_trace(options, id_, follow=follow)
