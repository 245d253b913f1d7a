"""The catalogue function's manifest: what it answers with, made where DSPy is at hand."""

from __future__ import annotations

from typing import Any

from dspy_lambda.api.app import listed
from dspy_lambda.api.openapi import describe
from dspy_lambda_infra.project import Project


def manifest(project: Project) -> dict[str, Any]:
    """What `dspy_lambda.catalogue` reads. The same project always gives the same."""
    programs = {name: function.program for name, function in project.functions.items() if function.program is not None}
    config = project.config
    return {
        "title": config.app_id,
        "description": config.description,
        "cors_origins": config.server.cors_origins,
        "programs": listed(programs, {}),
        "openapi": describe(config.app_id, config.description, programs),
    }
