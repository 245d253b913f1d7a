"""Shell completion of program names: read from the source, since importing the programs takes seconds."""

from __future__ import annotations

import ast
from contextlib import suppress
from pathlib import Path

import typer


def complete_program(context: typer.Context, args: list[str], incomplete: str) -> list[str]:
    """The programs of the project that the command line names, which begin so."""
    project = Path(context.params.get("project") or ".")
    return [name for name in program_names(project) if name.startswith(incomplete)]


def program_names(project: Path) -> list[str]:
    """Public classes in `src/*/modules/*.py` that derive from a class called `Module`, or from such a class."""
    bases: dict[str, set[str]] = {}
    for path in project.glob("src/*/modules/[!_]*.py"):
        with suppress(OSError, SyntaxError, ValueError):  # half-written files, while somebody types
            for node in ast.parse(path.read_bytes()).body:
                if isinstance(node, ast.ClassDef):
                    bases[node.name] = {ast.unparse(base).rpartition(".")[2] for base in node.bases}
    known, size = {"Module"}, 0
    while size != len(known):
        size = len(known)
        known |= {name for name, names in bases.items() if names & known}
    return sorted(name for name in known & bases.keys() if not name.startswith("_"))
