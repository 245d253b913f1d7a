"""`dspy-lambda local`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from dspy_lambda_infra.cli.options import ModelServer, NoLimits, Project, Reload


def local(
    context: typer.Context,
    project: Project = Path("."),
    model_server: ModelServer = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="The HTTP port; 0 picks a free one.")] = 3000,
    api: Annotated[
        Literal["rest", "http", "url"] | None,
        typer.Option(help="The kind of event for HTTP requests (default: from the config)."),
    ] = None,
    visibility_timeout: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=43_200,
            metavar="SECONDS",
            help="The queues' visibility timeout (default: 6 x the function's timeout).",
        ),
    ] = None,
    no_limits: NoLimits = False,
    reload: Reload = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the addresses as one line of JSON once they accept calls.")
    ] = False,
) -> int:
    """Run a project's functions, API and queues on this machine."""
    if reload:
        from dspy_lambda_infra.reload import run_reloading

        return run_reloading(context.obj, project, "127.0.0.1", port)
    from dspy_lambda_infra.local.command import run_local

    return run_local(
        project,
        port=port,
        api=api,
        visibility_timeout=visibility_timeout,
        model_server=model_server,
        limit_resources=not no_limits,
        as_json=as_json,
    )
