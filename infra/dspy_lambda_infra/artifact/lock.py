"""The lock file: every distribution of a project's artifacts, with its version and hashes, for all targets."""

from __future__ import annotations

import hashlib
import re
import tempfile
from pathlib import Path

from dspy_lambda.errors import ConfigError
from dspy_lambda_infra.artifact.requirements import NEVER, Requirements
from dspy_lambda_infra.artifact.uv import THIS_PYTHON, UvError, uv, without_wheel

LOCK_FILE = "dspy-lambda.lock"
# DSPy requires both, but imports LiteLLM for models without a native engine only, and openai for Databricks
# fine-tuning only: 180 MB. They stay where the project or one of its models needs them.
SELDOM_USED = frozenset({"litellm", "openai"})
_HEADER = "# Written by `dspy-lambda build`; delete this file to take newer versions. Inputs: "


def lock(root: Path, requirements: Requirements, python: str, *, litellm: bool) -> Path:
    """The project's lock file, made anew where its inputs have changed; versions that still fit are kept.

    Raises:
        ConfigError: the requirements contradict each other, or cannot be found.
    """
    path = root / LOCK_FILE
    header = _HEADER + _digest(root, requirements, python, litellm)
    if path.is_file() and path.read_text(encoding="utf-8").startswith(header + "\n"):
        return path
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        (work / "own.in").write_text("\n".join([*requirements.own, *(["litellm"] if litellm else [])]))
        sources = [str(work / "own.in"), *([str(requirements.project)] if requirements.project else [])]
        left_out = NEVER | (frozenset() if litellm else SELDOM_USED - _project_needs(root, requirements, work, python))
        out = work / LOCK_FILE
        if path.is_file():
            out.write_bytes(path.read_bytes())
        # --emit-index-url and the like stay off: a lock file with addresses is of use in one place only.
        options = ("--generate-hashes", "--no-emit-index-url", "--no-annotate", "--no-header", "-o", str(out))
        _compile(root, work, python, left_out, *_pinned(root, work), *options, *sources)
        _replace(path, f"{header}\n{out.read_text(encoding='utf-8')}")
    return path


def _project_needs(root: Path, requirements: Requirements, work: Path, python: str) -> frozenset[str]:
    """The project's own requirements and what they require, without DSPy's."""
    if requirements.project is None:
        return frozenset()
    text = _compile(root, work, python, NEVER | {"dspy"}, "--no-annotate", "--no-header", str(requirements.project))
    return frozenset(re.findall(r"^([a-z0-9][a-z0-9._-]*)(?:==| @)", text, re.MULTILINE))


def _pinned(root: Path, work: Path) -> list[str]:
    """The project's `uv.lock` as constraints."""
    if not (root / "uv.lock").is_file():
        return []
    arguments = ("--frozen", "--no-hashes", "--no-annotate", "--no-header", "--no-dev", "--no-emit-project")
    try:
        text = uv("export", "-q", "--project", str(root), *arguments)
    except UvError as error:
        raise ConfigError(f"{root}/uv.lock: uv cannot export it: {error}") from None
    constraints = work / "constraints.txt"
    constraints.write_text("\n".join(line for line in text.splitlines() if "==" in line and "@" not in line))
    return ["--constraints", str(constraints)]


def _compile(root: Path, work: Path, python: str, left_out: frozenset[str], *arguments: str) -> str:
    excludes = work / "excludes.txt"
    excludes.write_text("\n".join(sorted(left_out)))
    common = (*THIS_PYTHON, "--universal", "--python-version", python, "--excludes", str(excludes))
    try:
        return uv("pip", "compile", "-q", *common, *arguments, project=root)
    except UvError as error:
        contradiction = f"the project's requirements cannot be resolved for Python {python}:\n{error}"
        raise ConfigError(without_wheel(str(error), f"Python {python}") or contradiction) from None


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
        raise ConfigError(f"{path}: {error.strerror}; the lock file belongs there, under version control.") from None
