"""`dspy-lambda limits`."""

from __future__ import annotations

from pathlib import Path

from dspy_lambda_infra.cli.options import Json, Project


def limits(project: Project = Path("."), as_json: Json = False) -> int:
    """Compare the project's concurrency with each model's quota."""
    from dspy_lambda_infra.limits import run_limits

    return run_limits(project, as_json=as_json)
