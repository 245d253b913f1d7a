"""Name collisions between a project's modules and those that its functions, or this command, import."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Iterable, Iterator
from importlib.machinery import PathFinder
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from dspy_lambda.errors import ConfigError
from dspy_lambda_infra.artifact.requirements import read_requirements

_UNUSED = frozenset({"test"})  # CPython's own tests: no program imports them, and the runtimes do not ship them


def own_modules(root: Path) -> Iterator[tuple[Path, str]]:
    """Yield path and name of each top-level module or package that Python can import from a project's `src` or root.

    Folders without an `__init__.py` are skipped in the root, where they hide nothing; in `src` they can be imported, or
    hidden by another module.
    """
    for folder in (root / "src", root):
        for path in sorted(folder.iterdir()) if folder.is_dir() else []:
            is_package = (path / "__init__.py").is_file() or (folder.name == "src" and any(path.glob("**/*.py")))
            if (path.suffix == ".py" or is_package) and path.stem.isidentifier():
                yield path, path.stem


def check_names(root: Path) -> None:
    """Refuse a project with a module named like one of Python's, or like an installed one that is needed.

    Whichever of the two Python finds first hides the other. An installed distribution that neither the functions nor
    this command need does not matter: the project's own module comes first.

    Raises:
        ConfigError: names each module, what it collides with, and the remedy.
    """
    root = root.resolve()
    elsewhere = [entry for entry in sys.path if entry and not Path(entry).resolve().is_relative_to(root)]
    taken = {path: name for path, name in own_modules(root) if _is_found(name, elsewhere)}
    if not taken:
        return
    providers = importlib.metadata.packages_distributions()
    needed = _needed(root)
    refused = {}
    for path, name in taken.items():
        owners = [owner for owner in providers.get(name, []) if canonicalize_name(owner) in needed]
        if name in sys.stdlib_module_names:
            refused[path] = "Python itself"
        elif owners:
            refused[path] = owners[0]
    if refused:
        raise ConfigError("\n".join(collision(path, owner) for path, owner in refused.items()))


def collision(path: Path, owner: str) -> str:
    """Return the message for a project's package or module whose name collides with its owner's."""
    kind = "folder" if path.is_dir() else "file"
    return f"{path}: {owner} has a module `{path.stem}`, and one would hide the other; rename the {kind}"


def _is_found(name: str, elsewhere: list[str]) -> bool:
    if name in sys.stdlib_module_names:
        return name not in _UNUSED
    return PathFinder.find_spec(name, elsewhere) is not None


def _needed(root: Path) -> set[str]:
    """Return the names of all installed distributions that the functions or this command may import."""
    waiting: list[tuple[Requirement, Iterable[str]]] = [(Requirement("dspy-lambda[cli]"), ())]
    waiting += [(listed, ()) for listed in read_requirements(root).listed]
    found: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        requirement, extras = waiting.pop()
        name = canonicalize_name(requirement.name)
        marker = requirement.marker
        applies = marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras))
        if not applies or (name, frozenset(requirement.extras)) in found:
            continue
        found.add((name, frozenset(requirement.extras)))
        try:
            requires = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        waiting += [(Requirement(line), requirement.extras) for line in requires]
    return {name for name, _ in found}
