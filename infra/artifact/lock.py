"""The lock file: every distribution of a project's artifacts, with its version and hashes, for all targets."""

from __future__ import annotations

import hashlib
import importlib.metadata
import re
import tempfile
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from handler.errors import ConfigError
from infra.artifact.uv import UvError, uv

LOCK_FILE = "dspy-lambda.lock"
# DSPy requires both, but imports LiteLLM for models without a native engine only, and openai for Databricks
# fine-tuning only: 180 MB. They stay where the project or one of its models needs them.
SELDOM_USED = frozenset({"litellm", "openai"})
# dspy-cli is the HTTP server that Lambda replaces; this package is copied, and its command has no place there.
_NEVER = frozenset({"dspy-cli", "dspy-lambda"})
_HTTP = frozenset({"fastapi", "mangum"})
_HEADER = "# Written by `dspy-lambda build`; delete this file to take newer versions. Inputs: "


@dataclass(frozen=True)
class Requirements:
    """What a project's functions are built from.

    Attributes:
        own: of the handler package, by name.
        project: the file that the project's own come from, or None.
        names: the project's own, by name, without versions.
    """

    own: tuple[str, ...]
    project: Path | None
    names: tuple[str, ...]

    def roots(self, *, http: bool) -> set[str]:
        """The names that one program's function starts from."""
        own = {canonicalize_name(Requirement(line).name) for line in self.own}
        return {str(name) for name in own if http or name not in _HTTP} | (set(self.names) - _NEVER)


CATALOGUE_ROOTS = _HTTP


def read_requirements(root: Path) -> Requirements:
    """The handler's requirements, and the project's: `[project].dependencies`, else `requirements.txt`."""
    required = importlib.metadata.requires("dspy-lambda") or []
    own = tuple(sorted(line for line in required if "extra ==" not in line))
    pyproject, plain = root / "pyproject.toml", root / "requirements.txt"
    if pyproject.is_file():
        try:
            section = tomllib.loads(pyproject.read_text(encoding="utf-8")).get("project", {})
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{pyproject}: cannot be read: {error}.") from None
        if "dependencies" in section:
            return Requirements(own, pyproject, tuple(_names(section["dependencies"], pyproject)))
    if plain.is_file():
        lines = (line.partition(" #")[0].strip() for line in plain.read_text(encoding="utf-8").splitlines())
        kept = [line.rstrip("\\").strip() for line in lines if line and line[0] not in "#-"]
        return Requirements(own, plain, tuple(_names(kept, plain)))
    return Requirements(own, None, ())


def _names(lines: Iterable[str], path: Path) -> Iterable[str]:
    for line in lines:
        found = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", line)
        if found is None:
            raise ConfigError(f"{path}: {line!r} is no requirement that names a distribution; write `name @ {line}`.")
        yield str(canonicalize_name(found[0]))


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
        left_out = _NEVER | (frozenset() if litellm else SELDOM_USED - _project_needs(requirements, work, python))
        out = work / LOCK_FILE
        if path.is_file():
            out.write_bytes(path.read_bytes())
        # --emit-index-url and the like stay off: a lock file with addresses is of use in one place only.
        options = ("--generate-hashes", "--no-emit-index-url", "--no-annotate", "--no-header", "-o", str(out))
        _compile(work, python, left_out, *_pinned(root, work), *options, *sources)
        _replace(path, f"{header}\n{out.read_text(encoding='utf-8')}")
    return path


def _project_needs(requirements: Requirements, work: Path, python: str) -> frozenset[str]:
    """The project's own requirements and what they require, without DSPy's."""
    if requirements.project is None:
        return frozenset()
    text = _compile(work, python, _NEVER | {"dspy"}, "--no-annotate", "--no-header", str(requirements.project))
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


def _compile(work: Path, python: str, left_out: frozenset[str], *arguments: str) -> str:
    excludes = work / "excludes.txt"
    excludes.write_text("\n".join(sorted(left_out)))
    common = ("--universal", "--python-version", python, "--excludes", str(excludes))
    try:
        return uv("pip", "compile", "-q", *common, *arguments)
    except UvError as error:
        raise ConfigError(f"the project's requirements cannot be resolved for Python {python}:\n{error}") from None


def _digest(root: Path, requirements: Requirements, python: str, litellm: bool) -> str:
    digest = hashlib.sha256(repr((requirements.own, python, litellm)).encode())
    for path in (requirements.project, root / "uv.lock"):
        if path is not None and path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _replace(path: Path, text: str) -> None:
    new = path.with_name(f"{path.name}.new")
    try:
        new.write_text(text, encoding="utf-8")
        new.replace(path)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; the lock file belongs there, under version control.") from None
