"""`dspy-lambda build`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from handler.errors import ConfigError
from infra.artifact.build import build
from infra.artifact.size import IMAGE_LIMIT, UNZIPPED_LIMIT
from infra.artifact.target import Target
from infra.project import CATALOGUE, Project, load_project, logical_name


def run_build(options: argparse.Namespace) -> int:
    """Build one function, or all that the template has."""
    project = load_project(options.project)
    output: Path = options.output or Path("dist")
    if options.function is not None:
        names = {find_function(project, options.function): output}
    else:
        names = {name: output / logical_id(name) for name in function_names(project)}
    settings = project.config.lambda_
    limit = UNZIPPED_LIMIT if settings.package_type == "Zip" else IMAGE_LIMIT
    for name, folder in names.items():
        own = settings.function(name).architecture if name != CATALOGUE else None
        target = Target(
            options.python or settings.runtime.removeprefix("python"),
            options.architecture or own or settings.architecture,
        )
        built = build(project, name, target, folder, lambda line: print(line, file=sys.stderr))
        print(f"{logical_id(name)} (Python {target.python}, {target.architecture}): {folder}")
        print(built.size.table(limit))
    return 0


def function_names(project: Project) -> list[str]:
    """Every function that the template has: the programs', and the catalogue's where there is an API."""
    api = any(function.settings.http for function in project.functions.values())
    return [*project.functions, *([CATALOGUE] if api else [])]


def logical_id(name: str) -> str:
    """A function's logical id in the template."""
    return "CatalogueFunction" if name == CATALOGUE else f"{logical_name(name)}Function"


def find_function(project: Project, wanted: str) -> str:
    """A function by its program's name or its logical id.

    Raises:
        ConfigError: there is none.
    """
    names = function_names(project)
    for name in names:
        if wanted in (name, logical_id(name)):
            return name
    raise ConfigError(f"--function: no function {wanted!r}; there are: {', '.join(map(logical_id, names))}.")
