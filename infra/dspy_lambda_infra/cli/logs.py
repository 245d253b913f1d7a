"""`dspy-lambda logs`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dspy_lambda_infra.cli.completion import complete_program
from dspy_lambda_infra.cli.options import Project, Region, Stack, parse_moment


def logs(
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="FILE",
            help="A file of JSON lines, or - for stdin (default: what is piped, otherwise the project's running "
            "`dspy-lambda local`).",
        ),
    ] = None,
    stack: Stack = None,
    region: Region = None,
    project: Project = Path("."),
    tail: Annotated[
        bool,
        typer.Option(
            "--tail",
            "--follow",
            help="Show the calls so far and new ones as they end; Ctrl-C prints the totals and exits with 130.",
        ),
    ] = False,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Only calls since 15m, 2h or 3d ago, or since an ISO time such as 2026-07-01T12:00Z (default: all; of "
            "a stack, those of the last hour).",
        ),
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Only calls before that time.")] = None,
    program: Annotated[
        str | None,
        typer.Option(metavar="NAME", autocompletion=complete_program, help="Only calls of that program."),
    ] = None,
    model: Annotated[str | None, typer.Option(metavar="ALIAS", help="Only calls with that model.")] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Only calls whose outcome is not success.")] = False,
    slow: Annotated[
        float | None, typer.Option(metavar="SECONDS", min=0, help="Only calls that took at least that long.")
    ] = None,
    request: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Only calls of that request id, message id, correlation id or trace id."),
    ] = None,
    lines: Annotated[
        bool, typer.Option("--lines", help="Also show what the programs printed and logged in each call.")
    ] = False,
    payloads: Annotated[
        bool,
        typer.Option("--payloads", help="Also show inputs and outputs, or sizes (telemetry.payloads must write them)."),
    ] = False,
    limit: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="Show the last N calls (default: 50; with --json all); with --tail, stop after N. Totals count all.",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the selected lines unchanged, without totals.")
    ] = False,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write a report: one page with plots that loads nothing else."),
    ] = None,
) -> int:
    """Show calls and their totals from log lines: of a file, stdin, the local Lambda or a deployed stack.

    Lines that do not describe calls are skipped and counted on stderr. Costs of calls without a known price are not
    part of sums, which are then marked with +. Percentiles are by nearest rank, exact up to 4,096 calls for each row
    and within 0.5 % above.

    Reading a stack requires cloudformation:ListStackResources and logs:FilterLogEvents.

    \b
    Examples:
      dspy-lambda logs --tail
      dspy-lambda logs --stack qa-prod --since 2h --failed
      dspy-lambda logs function.log --program Answer --html report.html
      dspy-lambda logs --stack qa-prod --json --slow 10 > slow.jsonl
    """
    from dspy_lambda_infra.logs.command import run_logs
    from dspy_lambda_infra.logs.selection import Selection
    from dspy_lambda_infra.logs.view import Options

    if stack is not None and source is not None:
        raise typer.BadParameter("give only one of them", param_hint=["FILE", "--stack"])
    selection = Selection(
        since=parse_moment(since, "--since"),
        until=parse_moment(until, "--until"),
        program=program,
        model=model,
        failed=failed,
        slow=slow,
        request=request,
    )
    options = Options(
        project=project,
        source=source,
        stack=stack,
        region=region,
        follow=tail,
        limit=limit,
        own_lines=lines,
        payloads=payloads,
        as_json=as_json,
        html=html,
    )
    return run_logs(options, selection)
