"""Writes the lock file: every distribution in a project's artifacts, with version and hashes, for all targets."""

from __future__ import annotations

import hashlib
import re
import tempfile
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from dspy_lambda.errors import ConfigError
from dspy_lambda_infra.artifact.requirements import NEVER, Requirements
from dspy_lambda_infra.artifact.uv import THIS_PYTHON, UvError, explain_missing_wheel, uv

LOCK_FILE = "dspy-lambda.lock"
# DSPy requires both, but imports LiteLLM for models without a native engine only, and openai for Databricks
# fine-tuning only: 180 MB. They are kept if the project or one of its models needs them.
SELDOM_USED = frozenset({"litellm", "openai"})
_HEADER = "# Written by `dspy-lambda build`; delete this file to take newer versions. Inputs: "


def lock(root: Path, requirements: Requirements, python: str, *, litellm: bool) -> Path:
    """Return the project's lock file, rewritten if its inputs have changed; versions that still fit are kept.

    It lists wheels only, so no `setup.py` runs.

    Raises:
        ConfigError: the requirements conflict, or cannot be found.
    """
    path = root / LOCK_FILE
    header = _HEADER + _digest(root, requirements, python, litellm)
    if path.is_file() and path.read_text(encoding="utf-8").startswith(header + "\n"):
        return path
    _check_listed(requirements)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        (work / "own.in").write_text("\n".join([*requirements.own, *(["litellm"] if litellm else [])]))
        sources = [str(work / "own.in"), *([str(requirements.project)] if requirements.project else [])]
        left_out = NEVER | (frozenset() if litellm else SELDOM_USED - _project_needs(root, requirements, work, python))
        out = work / LOCK_FILE
        if path.is_file():
            out.write_bytes(path.read_bytes())
        # --emit-index-url and the like stay off: a lock file with index URLs is useful in one place only.
        options = ("--generate-hashes", "--no-emit-index-url", "--no-annotate", "--no-header", "-o", str(out))
        pinned = _pinned(root, work, requirements)
        try:
            _compile(root, work, python, left_out, *pinned, *options, *sources)
        except ConfigError as error:
            if not pinned:
                raise
            raise ConfigError(
                f"{error}\nuv.lock may pin an older version; run: uv lock --project {root} --upgrade"
            ) from None
        _replace(path, f"{header}\n{out.read_text(encoding='utf-8')}")
    return path


def _project_needs(root: Path, requirements: Requirements, work: Path, python: str) -> frozenset[str]:
    """Return the project's own requirements and their dependencies, without DSPy's."""
    if requirements.project is None:
        return frozenset()
    text = _compile(root, work, python, NEVER | {"dspy"}, "--no-annotate", "--no-header", str(requirements.project))
    return frozenset(re.findall(r"^([a-z0-9][a-z0-9._-]*)(?:==| @)", text, re.MULTILINE))


def _check_listed(requirements: Requirements) -> None:
    """Refuse a project pin that the handler's requirement excludes: uv would name only one side of the conflict."""
    needed = {canonicalize_name(r.name): r for r in map(Requirement, requirements.own)}
    for listed in requirements.listed:
        own = needed.get(canonicalize_name(listed.name))
        pins = [s.version for s in listed.specifier if s.operator == "==" and "*" not in s.version]
        if own and any(pin not in own.specifier for pin in pins):
            raise ConfigError(
                f"{requirements.project} has {listed}, but dspy-lambda needs {own}; change that line to: {own}"
            )


def _check_pinned(root: Path, requirements: Requirements, pinned: list[str]) -> None:
    """Refuse a `uv.lock` with a version that the handler's requirement excludes, and name the command that fixes it."""
    locked: dict[str, list[str]] = {}
    for line in pinned:
        name, _, version = line.partition(";")[0].strip().partition("==")
        locked.setdefault(canonicalize_name(name), []).append(version)
    # A name may occur more than once, for several Pythons or platforms: one matching version is enough.
    found = {
        own: f"{own.name}=={versions[0]}"
        for own in map(Requirement, requirements.own)
        if (versions := locked.get(canonicalize_name(own.name))) and not list(own.specifier.filter(versions))
    }
    if found:
        upgrades = " ".join(f"--upgrade-package {own.name}" for own in found)
        raise ConfigError(
            f"{root}/uv.lock has {', '.join(found.values())}, but dspy-lambda needs {', '.join(map(str, found))}; "
            f"run: uv lock --project {root} {upgrades}"
        )


def _pinned(root: Path, work: Path, requirements: Requirements) -> list[str]:
    """Return the project's `uv.lock` as constraints.

    Raises:
        ConfigError: it cannot be read, or pins a version that the handler cannot run with.
    """
    if not (root / "uv.lock").is_file():
        return []
    arguments = ("--frozen", "--no-hashes", "--no-annotate", "--no-header", "--no-dev", "--no-emit-project")
    try:
        text = uv("export", "-q", "--project", str(root), *arguments)
    except UvError as error:
        raise ConfigError(f"{root}/uv.lock: uv cannot export it: {error}") from None
    pinned = [line for line in text.splitlines() if "==" in line.partition(";")[0] and "@" not in line]
    _check_pinned(root, requirements, pinned)
    constraints = work / "constraints.txt"
    constraints.write_text("\n".join(pinned))
    return ["--constraints", str(constraints)]


def _compile(root: Path, work: Path, python: str, left_out: frozenset[str], *arguments: str) -> str:
    excludes = work / "excludes.txt"
    excludes.write_text("\n".join(sorted(left_out)))
    which = ("--universal", "--python-version", python, "--excludes", str(excludes), "--only-binary", ":all:")
    try:
        return uv("pip", "compile", "-q", *THIS_PYTHON, *which, *arguments, project=root)
    except UvError as error:
        contradiction = f"the project's requirements cannot be resolved for Python {python}:\n{error}"
        raise ConfigError(explain_missing_wheel(str(error), f"Python {python}") or contradiction) from None


def _digest(root: Path, requirements: Requirements, python: str, litellm: bool) -> str:
    digest = hashlib.sha256(repr((requirements.own, python, litellm)).encode())
    for path in (*requirements.files, root / "uv.lock"):
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _replace(path: Path, text: str) -> None:
    new = path.with_name(f"{path.name}.new")
    try:
        new.write_text(text, encoding="utf-8")
        new.replace(path)
    except OSError as error:
        raise ConfigError(
            f"{path}: {error.strerror}; the lock file must be written there; keep it under version control."
        ) from None
