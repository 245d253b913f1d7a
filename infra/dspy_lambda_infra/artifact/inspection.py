"""Inspects a staged artifact: what its program lacks, and what should not be in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import dspy
from packaging.utils import canonicalize_name

from dspy_lambda.errors import ConfigError
from dspy_lambda.programs.interpreters import HOW_TO_GET_DENO
from dspy_lambda_infra.artifact.imports import missing_imports
from dspy_lambda_infra.artifact.key_shapes import find_keys
from dspy_lambda_infra.artifact.requirements import NEVER
from dspy_lambda_infra.deno import why_deno
from dspy_lambda_infra.held_lms import held_lms
from dspy_lambda_infra.project import Function, Project

Say = Callable[[str], None]


def inspect_program(project: Project, function: Function, files: list[Path], task: Path, say: Say) -> None:
    """Inspect the staged task root of a program's function.

    Args:
        files: the project's own, relative to its root.
        say: called with each line for the user.

    Raises:
        ConfigError: something that the program imports, its code interpreter, or numpy for its embeddings is missing.
    """
    _check_imports(project, function, files, task, say)
    _check_deno(project, function, task, say)
    _check_numpy(project, function, task, say)
    for found in find_keys(project.root, files):
        say(f"warning: {found} and becomes part of the artifact; put keys into SSM or Secrets Manager")


def _check_imports(project: Project, function: Function, files: list[Path], task: Path, say: Say) -> None:
    """Refuse an artifact that lacks what its program imports; only warn if a layer may provide it.

    Raises:
        ConfigError: names each import with its file, line and remedy.
    """
    missing = missing_imports(task, files, function.module)
    lines = [f"{project.root / m.file}:{m.line}: imports {m.name}, {_remedy(project.root, m.name)}" for m in missing]
    if lines and not project.config.lambda_.layers:
        raise ConfigError("\n".join(lines))
    for line in lines:
        say(f"warning: {line}; ignore this if one of lambda.layers provides it")


def _check_deno(project: Project, function: Function, task: Path, say: Say) -> None:
    """Refuse an artifact whose program would fail to load without Deno; only warn if a layer may provide it.

    Raises:
        ConfigError: names the part of the program, and the ways to get an interpreter.
    """
    why = why_deno(function.program) if function.program else None
    if why is None:
        return
    if (task / "bin" / "deno").is_file():
        say(f"{why} runs Python in Deno, which fetches its files from deno.land and registry.npmjs.org on first use")
        return
    missing = f"{why} runs Python in Deno, which the artifact lacks: {HOW_TO_GET_DENO}"
    if not project.config.lambda_.layers:
        raise ConfigError(missing)
    say(f"warning: {missing}; ignore this if one of lambda.layers provides it")


def _check_numpy(project: Project, function: Function, task: Path, say: Say) -> None:
    """Refuse an artifact whose hosted embeddings would fail with each call; only warn if a layer may provide numpy.

    Raises:
        ConfigError: names the Embedder and the requirement to add.
    """
    places = [place for place, found in held_lms(function) if isinstance(found, dspy.Embedder)]
    if not places or (task / "numpy").is_dir():
        return
    missing = f"{places[0]}: dspy.Embedder needs numpy, which the artifact lacks: add dspy[numpy] to the requirements"
    if not project.config.lambda_.layers:
        raise ConfigError(missing)
    say(f"warning: {missing}; ignore this if one of lambda.layers provides it")


def _remedy(root: Path, module: str) -> str:
    name = module.partition(".")[0]
    if canonicalize_name(name) in NEVER or name == "dspy_lambda_infra":
        return "which is never part of an artifact: remove the import"
    for own in (root / "src" / name, root / "src" / f"{name}.py"):
        if own.exists():
            return f"but {own} is left out: it is ignored, or named like tests, logs or secrets; rename it"
    return (
        "which the artifact lacks: add its distribution to the project's dependencies, or, if the program can "
        "do without it, import it within try/except ImportError"
    )
