"""Selects the project files for an artifact: everything programs may read, and nothing secret or useless there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from pathspec.pattern import RegexPattern

from dspy_lambda_infra.artifact.ignore import read_rules, verdict
from dspy_lambda_infra.artifact.key_shapes import holds_private_key

# Every file in an artifact has this time (2000-01-01), so that the same inputs give the same zip.
TIME = 946_684_800
IGNORE_FILES = (".samignore", ".gitignore")  # the first one with a rule for a path decides
_CERTIFICATES = (".cer", ".crt", ".der")
Ignores = dict[str, list[tuple[Path, list[RegexPattern]]]]  # by kind, with their folders, from the top down
# In .gitignore syntax. The project's ignore files add to these and cannot re-include them.
_NEVER = read_rules(
    """\
.*
*.pem
*.key
*.p8
*.p12
*.pfx
*.jks
*.keystore
*.ppk
*.asc
*.gpg
*.kdbx
*.ovpn
id_rsa*
id_dsa*
id_ecdsa*
id_ed25519*
credentials
*credentials*.json
*credentials*.csv
*credentials*.yaml
*credentials*.yml
*credentials*.toml
*credentials*.ini
*service-account*.json
*service_account*.json
*serviceaccount*.json
*firebase-adminsdk*.json
*gcp*key*.json
*sa-key*.json
*sa_key*.json
kubeconfig*
!kubeconfig*.py
*.kubeconfig
*.tfstate*
*.tfvars*
*htpasswd
*netrc
rclone.conf
token.pickle
token.json
secrets/
secrets.*
*secret*.json
*secret*.yaml
*secret*.yml
*secret*.toml
*.env*
env.*
!env.py
*.bak
*.old
*.orig
*.save
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
"""
)


def project_files(root: Path) -> list[Path]:
    """Return the files to include, relative to the project, in a stable order.

    Excluded are hidden files (including `.env` and version control), keys, certificates and credentials by their usual
    names (`.crt`, `.cer` and `.der` only if they contain a private key), tests, logs, build files, and whatever
    `.gitignore` or `.samignore` excludes, in the project or in a folder above it up to the repository's root; rules
    that match a folder above the project itself are not applied. A symbolic link is followed only to files that are
    included themselves.
    """
    root = root.resolve()
    above: Ignores = {name: [] for name in IGNORE_FILES}
    for folder in reversed(_repository_above(root)):
        above = _with(above, folder)
    entries = list(_walk(root, root, above))
    files = {path for path in entries if not (root / path).is_symlink()}
    linked = {found for link in entries if link not in files for found in _through(root, link, files)}
    return sorted(files | linked)


def is_artifact(folder: Path) -> bool:
    """Whether a build made this folder: only there is `dspy_lambda` dated to the year 2000."""
    places = (folder / "dspy_lambda", folder / "task" / "dspy_lambda")
    return any(p.is_file() and p.stat().st_mtime == TIME for p in (place / "__init__.py" for place in places))


def _is_never(relative: Path, is_folder: bool) -> bool:
    # Matches Credentials.JSON too, which .gitignore rules distinguish from credentials.json.
    names = (relative, Path(relative.as_posix().lower()))
    return any(verdict(_NEVER, name.as_posix(), is_folder) for name in names)


def _walk(root: Path, folder: Path, inherited: Ignores) -> Iterator[Path]:
    ignores = _with(inherited, folder)
    for path in sorted(folder.iterdir()):
        relative = path.relative_to(root)
        if _is_never(relative, path.is_dir()) or _ignored(path, ignores):
            continue
        if path.is_symlink() or path.is_file():
            if not _is_private_key(path):
                yield relative
        elif path.is_dir() and not is_artifact(path):
            yield from _walk(root, path, ignores)


def _is_private_key(path: Path) -> bool:
    """Check the content where the name may also be that of a public certificate, which programs may need."""
    return path.suffix.lower() in _CERTIFICATES and path.is_file() and holds_private_key(path.read_bytes())


def _through(root: Path, link: Path, files: set[Path]) -> Iterator[Path]:
    """Yield a link's own path to each of the files that it leads to."""
    target = Path(os.path.realpath(root / link))  # Path.resolve raises at a loop
    if not target.is_relative_to(root) or target in (root / link).parents:
        return
    target = target.relative_to(root)
    for file in files:
        if file.is_relative_to(target):
            yield link / file.relative_to(target)


def _ignored(path: Path, ignores: Ignores) -> bool:
    """Apply git's rule: the last matching line of the nearest ignore file decides."""
    for name in IGNORE_FILES:
        for folder, rules in reversed(ignores[name]):
            said = verdict(rules, path.relative_to(folder).as_posix(), path.is_dir())
            if said is not None:
                return said
    return False


def _with(inherited: Ignores, folder: Path) -> Ignores:
    """Return the ignore files of a folder in addition to those above it."""
    found = {name: folder / name for name in IGNORE_FILES if (folder / name).is_file()}
    rules = {name: [(folder, read_rules(_read(path)))] for name, path in found.items()}
    return {name: [*inherited[name], *rules.get(name, [])] for name in IGNORE_FILES}


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8-sig", errors="replace")


def _repository_above(root: Path) -> list[Path]:
    """Return the folders above a project up to its repository's root, nearest first; none outside a repository."""
    root = root.resolve()
    if (root / ".git").exists():
        return []
    folders: list[Path] = []
    for folder in root.parents:
        folders.append(folder)
        if (folder / ".git").exists():
            return folders
    return []
