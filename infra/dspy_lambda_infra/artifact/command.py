"""`dspy-lambda build`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dspy_lambda.errors import ConfigError
from dspy_lambda_infra.artifact.build import build
from dspy_lambda_infra.artifact.size import IMAGE_LIMIT, UNZIPPED_LIMIT, Size
from dspy_lambda_infra.artifact.target import Target
from dspy_lambda_infra.checks import check
from dspy_lambda_infra.progress import step, steps
from dspy_lambda_infra.project import CATALOGUE, Project, announce_imports, load_project, logical_id
from dspy_lambda_infra.report import report


def run_build(
    root: Path,
    function: str | None = None,
    output: Path | None = None,
    python: str | None = None,
    architecture: str | None = None,
    *,
    as_json: bool = False,
) -> int:
    """Build one function, or all functions in the template.

    Args:
        function: a program's name, or its function's logical id; None for all.
        output: the artifact's folder; for all functions, the parent folder of their artifacts.

    Raises:
        ConfigError: something cannot be built; everything else is built and reported first.
    """
    announce_imports(root)
    project = load_project(root)
    names = [find_function(project, function)] if function else project.function_names
    check(project.loaded(), concurrency=0)  # `deploy` checks the account's concurrency
    parent = output or Path("dist")
    places = {name: output if output and function else parent / logical_id(name) for name in names}
    outcome = _build_each(project, places, python, architecture)
    document = {
        "functions": [artifact.document for artifact in outcome.artifacts],
        "warnings": outcome.warnings,
        "failed": outcome.failed,
    }
    text = "\n".join(artifact.text for artifact in outcome.artifacts)
    if text or as_json:
        report(text, document, as_json=as_json)
    outcome.require_all()
    if not function:
        project.require_loaded()
    return 0


def build_all(project: Project, parent: Path) -> str:
    """Build every function into `parent/<logical id>`, where a template with container images looks for them.

    Returns:
        a summary of what was built.

    Raises:
        ConfigError: names the functions that cannot be built, after the others have been.
    """
    outcome = _build_each(project, {name: parent / logical_id(name) for name in project.function_names})
    outcome.require_all()
    project.require_loaded()
    return "\n".join(artifact.text for artifact in outcome.artifacts)


@dataclass(frozen=True)
class _Artifact:
    """One function's artifact, as the command reports it."""

    function: str
    target: Target
    folder: Path
    size: Size
    limit: int

    @property
    def text(self) -> str:
        title = f"{self.function} (Python {self.target.python}, {self.target.architecture}): {self.folder}"
        return f"{title}\n{self.size.table(self.limit)}"

    @property
    def document(self) -> dict[str, Any]:
        return {
            "function": self.function,
            "python": self.target.python,
            "architecture": self.target.architecture,
            "artifact": str(self.folder),
            "unzipped_bytes": self.size.unzipped,
            "zipped_bytes": self.size.zipped,
            "limit_bytes": self.limit,
            "parts_bytes": dict(self.size.parts.most_common()),
        }


@dataclass(frozen=True)
class _Outcome:
    """What was built, the warnings, and why the rest (by logical id) was not built."""

    artifacts: list[_Artifact]
    warnings: list[str]
    failed: dict[str, str]

    def require_all(self) -> None:
        names: dict[str, list[str]] = {}
        for name, why in self.failed.items():
            names.setdefault(why, []).append(name)
        if names:
            raise ConfigError("\n".join(f"not built: {', '.join(some)}: {why}" for why, some in names.items()))


def _build_each(
    project: Project, places: dict[str, Path], python: str | None = None, architecture: str | None = None
) -> _Outcome:
    outcome = _Outcome([], [], {})

    def say(line: str) -> None:
        if line not in outcome.warnings:  # a warning for several functions is printed with the first
            outcome.warnings.append(line)
            print(line, file=sys.stderr)

    limit = UNZIPPED_LIMIT if project.config.lambda_.package_type == "Zip" else IMAGE_LIMIT
    with steps(len(places)):
        for number, (name, place) in enumerate(places.items(), 1):
            step(f"[{number}/{len(places)}] {logical_id(name)} ...")
            target = target_of(project, name, python, architecture)
            try:
                size = build(project, name, target, place, say).size
            except ConfigError as error:
                outcome.failed[logical_id(name)] = str(error)
            else:
                outcome.artifacts.append(_Artifact(logical_id(name), target, place, size, limit))
    return outcome


def target_of(project: Project, name: str, python: str | None = None, architecture: str | None = None) -> Target:
    """Return what a function is built for: as given, otherwise as configured."""
    settings = project.config.lambda_
    own = settings.function(name).architecture if name != CATALOGUE else None
    return Target(python or settings.runtime.removeprefix("python"), architecture or own or settings.architecture)


def find_function(project: Project, wanted: str) -> str:
    """Find a function by its program's name or its logical id.

    Raises:
        ConfigError: there is no such function, or its program cannot be loaded.
    """
    for name, why in project.failed.items():
        if wanted in (name, logical_id(name)):
            raise ConfigError(f"{name} cannot be loaded: {why}")
    names = project.function_names
    for name in names:
        if wanted in (name, logical_id(name)):
            return name
    raise ConfigError(f"--function: no function {wanted!r}; choose from: {', '.join(map(logical_id, names))}.")
