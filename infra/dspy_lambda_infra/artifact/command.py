"""`dspy-lambda build`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from dspy_lambda.errors import ConfigError
from dspy_lambda_infra.artifact.build import build
from dspy_lambda_infra.artifact.size import IMAGE_LIMIT, UNZIPPED_LIMIT
from dspy_lambda_infra.artifact.target import Target
from dspy_lambda_infra.checks import check
from dspy_lambda_infra.progress import progress
from dspy_lambda_infra.project import CATALOGUE, Project, load_project, logical_id, say_what_runs


def run_build(options: argparse.Namespace) -> int:
    """Build one function, or all that the template has."""
    say_what_runs(options.project)
    project = load_project(options.project)
    name = find_function(project, options.function) if options.function else None
    check(project.loaded(), concurrency=0)  # whether the account has enough is for `deploy`, which asks it
    if name is None:
        build_all(project, options.output or Path("dist"), options.python, options.architecture)
    else:
        output = options.output or Path("dist") / logical_id(name)
        _build(project, name, output, options.python, options.architecture, _say_once())
    return 0


def build_all(project: Project, output: Path, python: str | None = None, architecture: str | None = None) -> None:
    """Build every function into `output/<logical id>`, where the template of container images looks for them.

    Raises:
        ConfigError: naming those that cannot be built, once the others are.
    """
    failed: dict[str, list[str]] = {}
    say = _say_once()
    for number, name in enumerate(project.function_names, 1):
        progress(f"[{number}/{len(project.function_names)}] {logical_id(name)} ...")
        try:
            _build(project, name, output / logical_id(name), python, architecture, say)
        except ConfigError as error:
            failed.setdefault(str(error), []).append(logical_id(name))
    if failed:
        raise ConfigError("\n".join(f"not built: {', '.join(names)}: {why}" for why, names in failed.items()))
    project.require_loaded()


def _say_once() -> Callable[[str], None]:
    """What holds for several functions is printed with the first."""
    said = set[str]()

    def say(line: str) -> None:
        if line not in said:
            said.add(line)
            print(line, file=sys.stderr)

    return say


def _build(
    project: Project,
    name: str,
    output: Path,
    python: str | None,
    architecture: str | None,
    say: Callable[[str], None],
) -> None:
    target = target_of(project, name, python, architecture)
    built = build(project, name, target, output, say)
    print(f"{logical_id(name)} (Python {target.python}, {target.architecture}): {output}")
    is_zip = project.config.lambda_.package_type == "Zip"
    print(built.size.table(UNZIPPED_LIMIT if is_zip else IMAGE_LIMIT))


def target_of(project: Project, name: str, python: str | None = None, architecture: str | None = None) -> Target:
    """What a function is built for: as said, else as configured."""
    settings = project.config.lambda_
    own = settings.function(name).architecture if name != CATALOGUE else None
    return Target(python or settings.runtime.removeprefix("python"), architecture or own or settings.architecture)


def find_function(project: Project, wanted: str) -> str:
    """A function by its program's name or its logical id.

    Raises:
        ConfigError: there is none, or its program cannot be loaded.
    """
    for name, why in project.failed.items():
        if wanted in (name, logical_id(name)):
            raise ConfigError(f"{name} cannot be loaded: {why}")
    names = project.function_names
    for name in names:
        if wanted in (name, logical_id(name)):
            return name
    raise ConfigError(f"--function: no function {wanted!r}; there are: {', '.join(map(logical_id, names))}.")
