"""Reads the requirements of a project's functions: the handler's and the project's own."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from dspy_lambda.errors import ConfigError
from dspy_lambda_infra.artifact.uv import without_user

# Lambda replaces dspy-cli's HTTP server; this package is copied, and its command is not needed there.
NEVER = frozenset({"dspy-cli", "dspy-lambda"})
_HTTP = frozenset({"fastapi", "mangum"})
CATALOGUE_ROOTS = tuple(Requirement(name) for name in sorted(_HTTP))
_INCLUDED = re.compile(r"(-r|--requirement|-c|--constraint)[=\s]*(\S+)")
_INDEX = re.compile(r"(-i|--index-url|--extra-index-url|-f|--find-links)[=\s]*(\S+)")
_BUILDS = re.compile(r"(-e|--editable|--no-binary)\b")
_LONG = {"-i": "--index-url", "-f": "--find-links"}


@dataclass(frozen=True)
class Requirements:
    """The requirements of a project's functions.

    Attributes:
        own: the handler package's requirements.
        project: the file with the project's own requirements, or None.
        listed: the project's own requirements.
        files: all files that they come from: `project` and those it includes.
        indexes: uv arguments for the indexes that a requirements.txt names besides PyPI.
    """

    own: tuple[str, ...]
    project: Path | None = None
    listed: tuple[Requirement, ...] = ()
    files: tuple[Path, ...] = ()
    indexes: tuple[str, ...] = ()

    def roots(self, *, http: bool) -> list[Requirement]:
        """Return the direct requirements of one program's function."""
        own = [Requirement(line) for line in self.own]
        needed = [r for r in own if http or canonicalize_name(r.name) not in _HTTP]
        return [*needed, *(r for r in self.listed if canonicalize_name(r.name) not in NEVER)]


def read_requirements(root: Path) -> Requirements:
    """Read the handler's requirements and the project's: `[project].dependencies`, otherwise `requirements.txt`.

    Raises:
        ConfigError: a file, or a line in it, cannot be read.
    """
    required = importlib.metadata.requires("dspy-lambda") or []
    own = tuple(sorted(line for line in required if "extra ==" not in line))
    pyproject, plain = root / "pyproject.toml", root / "requirements.txt"
    if pyproject.is_file():
        listed = _dependencies(pyproject, is_alone=not plain.is_file())
        if listed is not None:
            return Requirements(own, pyproject, tuple(_parse(line, pyproject) for line in listed), (pyproject,))
    if plain.is_file():
        return _read_plain(own, plain)
    return Requirements(own)


def _dependencies(path: Path, *, is_alone: bool) -> list[str] | None:
    try:
        whole = tomllib.loads(_read(path))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: cannot be read: {error}.") from None
    section = whole.get("project", {})
    section = section if isinstance(section, dict) else {}
    listed = section.get("dependencies")
    tool = whole.get("tool", {})
    elsewhere = "dependencies" in section.get("dynamic", []) or "dependencies" in tool.get("poetry", {})
    if listed is None and elsewhere and is_alone:
        raise ConfigError(f"{path}: has no project.dependencies; list them there, or export them to requirements.txt.")
    if listed is not None and not (isinstance(listed, list) and all(isinstance(line, str) for line in listed)):
        raise ConfigError(f"{path}: project.dependencies: must be a list of requirements.")
    return listed


def _read_plain(own: tuple[str, ...], path: Path) -> Requirements:
    """Read a requirements.txt, by hand since packaging reads single requirements only.

    https://pip.pypa.io/en/stable/reference/requirements-file-format/"""
    listed: list[Requirement] = []
    files: dict[Path, None] = {}
    indexes: list[str] = []
    for file, line in _lines(path.resolve(), files, constraints=False):
        if option := _INDEX.match(line):
            place = (file.parent / option[2]).resolve()
            indexes += [_LONG.get(option[1], option[1]), str(place) if place.exists() else option[2]]
        elif _BUILDS.match(line):
            raise ConfigError(
                f"{file}: {without_user(line)!r} would build a distribution, which runs its setup.py; use a wheel "
                "instead (--find-links names the folder of one that you built)."
            )
        elif not line.startswith("-"):
            listed.append(_parse(re.split(r"\s--", line)[0], file))
    return Requirements(own, path, tuple(listed), tuple(files), tuple(indexes))


def _lines(path: Path, files: dict[Path, None], *, constraints: bool) -> Iterator[tuple[Path, str]]:
    """Yield the lines of a requirements file and of those that it includes; of constraints files, only the options."""
    if path in files:
        return
    files[path] = None
    for line in re.sub(r"\\\n", " ", _read(path)).splitlines():
        line = re.sub(r"(^|\s)#.*", "", line).strip()
        if found := _INCLUDED.match(line):
            yield from _lines((path.parent / found[2]).resolve(), files, constraints=constraints or "-c" in found[1])
        elif line and (line.startswith("-") or not constraints):
            yield path, line


def _parse(line: str, path: Path) -> Requirement:
    try:
        return Requirement(line)
    except InvalidRequirement:
        raise ConfigError(
            f"{path}: {without_user(line)!r} does not name a distribution; write `name`, "
            "`name==version` or `name @ URL`."
        ) from None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(f"{path}: cannot be read: {reason}.") from None
