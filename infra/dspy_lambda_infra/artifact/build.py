"""Builds one function's artifact: the handler, the project, and the distributions that this function needs."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

import dspy_lambda
from dspy_lambda.api.shared import MANIFEST
from dspy_lambda.errors import ConfigError
from dspy_lambda_infra.artifact.distributions import Distributions, build_lock, compile_tree, install
from dspy_lambda_infra.artifact.files import TIME, is_artifact, project_files
from dspy_lambda_infra.artifact.inspection import inspect_program
from dspy_lambda_infra.artifact.litellm import why_litellm
from dspy_lambda_infra.artifact.lock import lock
from dspy_lambda_infra.artifact.requirements import CATALOGUE_ROOTS, Requirements, read_requirements
from dspy_lambda_infra.artifact.size import IMAGE_LIMIT, UNZIPPED_LIMIT, Size, measure
from dspy_lambda_infra.artifact.target import Target
from dspy_lambda_infra.collisions import collision, own_modules
from dspy_lambda_infra.config import CONFIG_FILE
from dspy_lambda_infra.manifest import manifest
from dspy_lambda_infra.progress import progress
from dspy_lambda_infra.project import CATALOGUE, Function, Project

# The same artifact on the runtime's base image; the template names the handler.
_DOCKERFILE = """\
ARG BASE=public.ecr.aws/lambda/python:{python}
FROM ${{BASE}}
COPY task/ /var/task/
"""


@dataclass(frozen=True)
class Built:
    """A finished artifact."""

    folder: Path
    size: Size


def build(project: Project, name: str, target: Target, output: Path, say: Callable[[str], None]) -> Built:
    """Build one function's artifact into `output`, atomically.

    Args:
        name: a program's name, or `dspy_lambda_infra.project.CATALOGUE`.
        say: called with each line for the user.

    Raises:
        ConfigError: the artifact cannot be built, or exceeds Lambda's limit.
    """
    output = output.resolve()
    _check_place(output)
    is_image = project.config.lambda_.package_type == "Image"
    requirements = read_requirements(project.root)
    reasons = {f.name: why_litellm(project, f) for f in project.functions.values()}
    progress("resolving and installing the requirements (minutes the first time) ...")
    with build_lock(project.root):
        locked = lock(project.root, requirements, _floor(project, target), litellm=any(reasons.values()))
        tree = install(project.root, locked, target, requirements.indexes)
    if not tree.precompiled:
        say(f"warning: no Python {target.python} on this machine: no bytecode, slower cold starts")
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as folder:
        staged = Path(folder) / "artifact"
        task = staged / "task" if is_image else staged
        task.mkdir(parents=True)
        if name == CATALOGUE:
            _stage_catalogue(project, tree, task)
        else:
            if reasons[name]:
                say(f"{name} needs LiteLLM, about 200 MB and 3 s at its first call: {'; '.join(reasons[name])}")
            files = _stage_program(project, project.functions[name], tree, requirements, bool(reasons[name]), task)
            inspect_program(project, project.functions[name], files, task, say)
        if is_image:
            (staged / "Dockerfile").write_text(_DOCKERFILE.format(python=target.python), encoding="utf-8")
        size = measure(task)
        _check(name, size, IMAGE_LIMIT if is_image else UNZIPPED_LIMIT)
        _publish(staged, output, Path(folder) / "old")
    return Built(output, size)


def _floor(project: Project, target: Target) -> str:
    """Return the lowest Python version that the lock file supports."""
    configured = project.config.lambda_.runtime.removeprefix("python")
    return min(configured, target.python, key=Version)


def _stage_program(
    project: Project, function: Function, tree: Distributions, requirements: Requirements, litellm: bool, staged: Path
) -> list[Path]:
    """Stage a program's artifact and return the project's own files in it."""
    roots = [*requirements.roots(http=function.settings.http), *([Requirement("litellm")] if litellm else [])]
    owners = _copy_distributions(tree, roots, staged)
    own = _copy_handler(staged)
    files = project_files(project.root)
    _check_collisions(project.root, files, owners)
    own += files
    for path in files:
        _copy(project.root / path, staged / path)
    for path in (Path(CONFIG_FILE), *_imported(project.root)):
        if path not in own:
            raise ConfigError(
                f"{project.root / path}: a function needs this file, but it is ignored, or named like tests or "
                "secrets; rename it."
            )
    _finish(tree, own, staged)
    return files


def _check_collisions(root: Path, files: list[Path], owners: dict[Path, str]) -> None:
    """Refuse a project that has a file, package or module that a distribution also has.

    Args:
        files: the project's own, relative to its root.
        owners: the distributions' files, relative to the artifact, and the distribution of each.
    """
    for path in files:
        if path in owners:
            raise ConfigError(f"{root / path}: {owners[path]} has a file of the same name; rename this one.")
    names = {path.parts[0].partition(".")[0]: owner for path, owner in owners.items() if _is_code(path)}
    refused = [collision(path, names[name]) for path, name in own_modules(root) if name in names]
    if refused:
        raise ConfigError("\n".join(refused))


def _is_code(path: Path) -> bool:
    return path.suffix in (".py", ".so")


def _imported(root: Path) -> list[Path]:
    """Return the project's files that its programs were loaded from."""
    files = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    return sorted(Path(file).relative_to(root) for file in files if file and Path(file).is_relative_to(root / "src"))


def _stage_catalogue(project: Project, tree: Distributions, staged: Path) -> None:
    _copy_distributions(tree, CATALOGUE_ROOTS, staged)
    own = _copy_handler(staged)
    (staged / MANIFEST).write_text(json.dumps(manifest(project)), encoding="utf-8")
    _finish(tree, own, staged)


def _copy_distributions(tree: Distributions, roots: Iterable[Requirement], staged: Path) -> dict[Path, str]:
    """Copy the distributions' files; return them with the distribution of each."""
    owners = {path: name for name in sorted(tree.closure(roots)) for path in tree.files(name)}
    for path in owners:
        _copy(tree.root / path, staged / path)
    return owners


def _copy_handler(staged: Path) -> list[Path]:
    package = Path(dspy_lambda.__file__).parent
    paths = [path.relative_to(package.parent) for path in sorted(package.rglob("*.py"))]
    for path in paths:
        _copy(package.parent / path, staged / path)
    return paths


def _copy(source: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, to)  # keeps permissions: some distributions contain executables


def _finish(tree: Distributions, own: list[Path], staged: Path) -> None:
    """Precompile the files that no distribution owns, and give every file the same time and permissions."""
    if tree.interpreter is not None:
        compile_tree(tree.interpreter, staged, *sorted({path.parts[0] for path in own if path.suffix == ".py"}))
    for path in [*staged.rglob("*"), staged]:
        path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        os.utime(path, (TIME, TIME))


def _check(name: str, size: Size, limit: int) -> None:
    if size.unzipped > limit:
        raise ConfigError(
            f"{name}: the artifact is {size.unzipped:,} bytes unzipped; Lambda's limit is {limit:,}.\n"
            f"{size.table(limit)}\n"
            f"Drop a requirement, or deploy as a container image of up to 10 GB: lambda.package_type: Image."
        )


def _check_place(output: Path) -> None:
    """Accept a folder that is empty, holds an older artifact, or does not exist: nothing else is overwritten."""
    if output.is_dir() and any(output.iterdir()) and not is_artifact(output):
        raise ConfigError(f"{output}: is not empty and not an artifact; choose another --output.")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{output}: {error.strerror}; choose another --output.") from None
    if output.exists() and not output.is_dir():
        raise ConfigError(f"{output}: is a file; choose another --output.")


def _publish(staged: Path, output: Path, old: Path) -> None:
    """Move the finished artifact into place; whatever is there moves to `old`."""
    if output.exists():
        old.mkdir()
        for path in output.iterdir():
            path.rename(old / path.name)
        for path in staged.iterdir():
            path.rename(output / path.name)
    else:
        staged.rename(output)
