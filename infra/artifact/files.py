"""Which files of a project enter its artifacts: what programs may read, and nothing secret or of no use there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pathspec import GitIgnoreSpec

IGNORE_FILES = (".gitignore", ".samignore")
# In .gitignore's own language. The project's ignore files come on top; none of them can bring these back.
_NEVER = GitIgnoreSpec.from_lines(
    """\
.*
!.python-version
*.pem
*.key
*.p12
*.pfx
*.keystore
id_rsa*
id_ed25519*
credentials
credentials.json
secrets.*
*secret*.json
*secret*.yaml
*secret*.yml
*secret*.toml
*.env
*.log
logs/
tests/
test/
conftest.py
test_*.py
*_test.py
__pycache__/
*.py[cod]
*.egg-info/
venv/
env/
node_modules/
/build/
/dist/
*.sqlite-journal
*.swp
*~
/template*.yaml
/template*.yml
/samconfig.*
/Makefile
/Dockerfile*
/docker-compose*
/requirements*.txt
/pyproject.toml
/uv.lock
/poetry.lock
/dspy-lambda.lock
/events/
/README*
""".splitlines()
)


def project_files(root: Path) -> Iterator[Path]:
    """The files that enter, relative to the project, in a stable order.

    Left out: hidden files (`.env` and version control among them), keys and certificates by their usual names, tests,
    logs, build files, and whatever `.gitignore` or `.samignore` names, there or in a folder above it up to the
    repository's root. A symbolic link enters as what it points to, if that lies in the project.
    """
    above = [(folder, spec) for folder in reversed(_repository_above(root)) for spec in _specs(folder)]
    yield from _walk(root.resolve(), root.resolve(), above)


def _walk(root: Path, folder: Path, inherited: list[tuple[Path, GitIgnoreSpec]]) -> Iterator[Path]:
    specs = [*inherited, *((folder, spec) for spec in _specs(folder))]
    for path in sorted(folder.iterdir()):
        relative = path.relative_to(root)
        if path.is_symlink() and not path.resolve().is_relative_to(root):
            continue
        if _NEVER.match_file(_name(relative, path)) or _ignored(path, specs):
            continue
        if path.is_dir():
            if not path.is_symlink():
                yield from _walk(root, path, specs)
        elif path.is_file():
            yield relative


def _ignored(path: Path, specs: list[tuple[Path, GitIgnoreSpec]]) -> bool:
    """By git's rule: the last file that says anything about a path decides."""
    for base, spec in reversed(specs):
        decided = spec.check_file(_name(path.relative_to(base), path)).include
        if decided is not None:
            return decided
    return False


def _name(relative: Path, path: Path) -> str:
    return relative.as_posix() + ("/" if path.is_dir() else "")


def _specs(folder: Path) -> list[GitIgnoreSpec]:
    found = (folder / name for name in IGNORE_FILES)
    return [GitIgnoreSpec.from_lines(file.read_text(errors="replace").splitlines()) for file in found if file.is_file()]


def _repository_above(root: Path) -> list[Path]:
    """The folders above a project up to its repository's root, the nearest first; none outside a repository."""
    root = root.resolve()
    if (root / ".git").exists():
        return []
    folders: list[Path] = []
    for folder in root.parents:
        folders.append(folder)
        if (folder / ".git").exists():
            return folders
    return []
