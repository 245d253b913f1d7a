"""Checks that an artifact contains what its program imports, without running it: it may target another platform."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

# Included in the runtimes. https://docs.aws.amazon.com/lambda/latest/dg/lambda-python.html
_RUNTIME = frozenset(
    {"awslambdaric", "boto3", "botocore", "dateutil", "jmespath", "s3transfer", "six", "snapshot_restore_py", "urllib3"}
)
# Code under a condition on these need not run on Lambda.
_CONDITIONS = frozenset({"TYPE_CHECKING", "__name__", "platform", "version_info"})
_FORGIVING = frozenset({"ImportError", "ModuleNotFoundError", "Exception", "BaseException"})


@dataclass(frozen=True)
class Missing:
    """An import that the artifact cannot satisfy: file (relative to the artifact), line, and the module's name."""

    file: Path
    line: int
    name: str


def missing_imports(artifact: Path, files: Iterable[Path], module: str) -> list[Missing]:
    """Return the imports of a program's module, and of the project files it imports, that the artifact lacks.

    Ignores imports that cannot fail or need not run: within `try` with an `except ImportError`, under
    `if TYPE_CHECKING`, and under conditions on the platform, Python's version or `__main__`.

    Args:
        files: the project's own, relative to the artifact.
    """
    own = _modules(files)
    waiting, seen, missing = [module], set[str](), []
    while waiting:
        for name in _with_packages(waiting.pop()):
            if name in seen or name not in own:
                continue
            seen.add(name)
            for line, wanted, members in _imports(artifact / own[name], name):
                waiting += [wanted, *(f"{wanted}.{member}" for member in members)]
                if not _is_there(artifact, wanted):
                    missing.append(Missing(own[name], line, wanted))
    return sorted(set(missing), key=lambda found: (found.file, found.line, found.name))


def _modules(files: Iterable[Path]) -> dict[str, Path]:
    """Return the project's modules by name, relative to the artifact's root and to `src`."""
    found = {}
    for file in files:
        if file.suffix == ".py":
            path = file.parent if file.name == "__init__.py" else file.with_suffix("")
            parts = path.parts
            found[".".join(parts)] = file
            if parts[:1] == ("src",):
                found[".".join(parts[1:])] = file
    return found


def _with_packages(name: str) -> list[str]:
    """Yield `a`, `a.b` and `a.b.c`: Python also runs the packages' own files."""
    parts = name.split(".")
    return [".".join(parts[: length + 1]) for length in range(len(parts))]


def _is_there(artifact: Path, name: str) -> bool:
    first, *more = name.split(".")
    if first in sys.stdlib_module_names or first in _RUNTIME:
        return True
    if _exists(artifact / "src" / first):
        return _reaches(artifact / "src", first, *more)
    # For a distribution, the top-level name is enough: it may create submodules at run time. A namespace package, which
    # several distributions share, needs the full name.
    is_shared = (artifact / first).is_dir() and not any((artifact / first).glob("__init__.*"))
    return _reaches(artifact, first, *more[:is_shared])


def _reaches(folder: Path, *parts: str) -> bool:
    return all(_exists(folder.joinpath(*parts[: length + 1])) for length in range(len(parts)))


def _exists(path: Path) -> bool:
    """Whether there is a package's folder or a module's file: source, bytecode or native."""
    return path.is_dir() or any(path.parent.glob(f"{path.name}.*"))


def _imports(file: Path, module: str) -> Iterator[tuple[int, str, list[str]]]:
    """Yield each import's line, its module's full name, and the names that it imports from there."""
    package = module.split(".") if file.name == "__init__.py" else module.split(".")[:-1]
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):  # not Python, despite its name: nothing has imported it here either
        return
    for node in _needed(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, []) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join([*above, *([node.module] if node.module else [])])
            yield node.lineno, name, [alias.name for alias in node.names]


def _needed(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of a tree except those that may fail to import or need not run."""
    yield node
    children: Iterable[ast.AST] = ast.iter_child_nodes(node)
    if isinstance(node, ast.Try) and any(map(_catches_import_error, node.handlers)):
        children = [*node.orelse, *node.finalbody]
    elif isinstance(node, ast.If) and _CONDITIONS & _names(node.test):
        children = []
    for child in children:
        yield from _needed(child)


def _catches_import_error(handler: ast.ExceptHandler) -> bool:
    return handler.type is None or bool(_FORGIVING & _names(handler.type))


def _names(node: ast.AST) -> set[str]:
    found = {below.id for below in ast.walk(node) if isinstance(below, ast.Name)}
    return found | {below.attr for below in ast.walk(node) if isinstance(below, ast.Attribute)}
