"""`dspy-lambda serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dspy_lambda_infra.cli.options import ModelServer, Project, Reload


def serve(
    context: typer.Context,
    project: Project = Path("."),
    model_server: ModelServer = False,
    host: Annotated[str, typer.Option(help="The address to listen on; use 0.0.0.0 in a container.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The HTTP port; 0 picks a free one.")] = 8000,
    dev: Annotated[
        bool, typer.Option("--dev", help="Include the texts of exceptions in answers; on loopback only.")
    ] = False,
    reload: Reload = False,
) -> int:
    """Serve all programs from one process, with concurrent requests."""
    if reload:
        from dspy_lambda_infra.reload import run_reloading

        return run_reloading(context.obj, project, host, port)
    from dspy_lambda_infra.serve import run_serve

    return run_serve(project, host=host, port=port, dev=dev, model_server=model_server)
