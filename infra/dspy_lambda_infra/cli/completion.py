"""Shell completion for program names, read from the source because importing the programs takes seconds."""

from __future__ import annotations

import ast
from contextlib import suppress
from pathlib import Path

import typer


def complete_program(context: typer.Context, args: list[str], incomplete: str) -> list[str]:
    """Return the matching programs of the project that the command line names."""
    project = Path(context.params.get("project") or ".")
    return [name for name in program_names(project) if name.startswith(incomplete)]


def program_names(project: Path) -> list[str]:
    """Return public classes in `src/*/modules/*.py` that derive, directly or not, from a class called `Module`."""
    bases: dict[str, set[str]] = {}
    for path in project.glob("src/*/modules/[!_]*.py"):
        with suppress(OSError, SyntaxError, ValueError):  # files that are being edited
            for node in ast.parse(path.read_bytes()).body:
                if isinstance(node, ast.ClassDef):
                    bases[node.name] = {ast.unparse(base).rpartition(".")[2] for base in node.bases}
    known, size = {"Module"}, 0
    while size != len(known):
        size = len(known)
        known |= {name for name, names in bases.items() if names & known}
    return sorted(name for name in known & bases.keys() if not name.startswith("_"))
