"""Installs a lock file's distributions for a target once, pruned and precompiled; functions copy what they need."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from dspy_lambda.errors import ConfigError
from dspy_lambda_infra.artifact.lock import SELDOM_USED
from dspy_lambda_infra.artifact.requirements import NEVER
from dspy_lambda_infra.artifact.target import TASK_ROOT, Target
from dspy_lambda_infra.artifact.uv import THIS_PYTHON, UvError, explain_missing_wheel, uv

CACHE_FOLDER = ".dspy-lambda"
_LAYOUT = "1"  # change it when this file would install a different tree from the same lock file
# Files that no import and no metadata query ever reads. RECORD and the like contain this machine's paths.
_PRUNED = re.compile(
    r"(^|/)(tests?|__pycache__)/|\.(pyi|pyx|pxd|c|h|cpp|hpp|rs|f90|a|la)$|(^|/)py\.typed$"
    r"|\.dist-info/(RECORD|INSTALLER|REQUESTED|WHEEL|direct_url\.json|uv_cache\.json|top_level\.txt|sboms/)|^\.\./"
    r"|^litellm/proxy/(_experimental/out|swagger)/"  # its server's web pages: 22 MB
)
# LiteLLM's server, which it rarely imports: with 15 MB of bytecode for it, LiteLLM would not fit into a zip.
_SERVER = re.compile("litellm/proxy/")


@dataclass(frozen=True)
class Distributions:
    """An installed tree.

    Attributes:
        root: its folder.
        interpreter: the target's Python on this machine, used to precompile the files; None if there is none, and
            so no bytecode.
    """

    root: Path
    target: Target
    interpreter: str | None

    @property
    def precompiled(self) -> bool:
        """Whether the files are precompiled."""
        return self.interpreter is not None

    def closure(self, roots: Iterable[Requirement]) -> set[str]:
        """Return the names of all distributions that these need on the target, including themselves.

        Raises:
            ConfigError: one of them is not installed.
        """
        found: set[tuple[str, str]] = set()
        waiting = [wanted for root in roots for wanted in self._wanted(root, "")]
        while waiting:
            name, extra = waiting.pop()
            if (name, extra) in found:
                continue
            if name not in self._known:
                raise ConfigError(f"{name} is missing from the project's locked requirements; delete the lock file.")
            found.add((name, extra))
            for line in self._known[name].requires or []:
                wanted = self._wanted(Requirement(line), extra)
                waiting += [w for w in wanted if name != "dspy" or w[0] not in SELDOM_USED]
        return {name for name, _ in found}

    def files(self, name: str) -> list[Path]:
        """Return a distribution's files for an artifact, relative to the root, with their bytecode."""
        listed = [Path(str(file)) for file in self._known[name].files or []]
        kept = [path for path in listed if not _PRUNED.search(path.as_posix()) and not self._is_script(path)]
        compiled = [bytecode(p, self.target) for p in kept if p.suffix == ".py" and not _SERVER.match(p.as_posix())]
        return [*(p for p in kept if (self.root / p).is_file()), *(p for p in compiled if (self.root / p).is_file())]

    def _is_script(self, path: Path) -> bool:
        """Whether a file is a script for this machine's Python; native programs such as Deno are kept."""
        if path.parts[0] != "bin" or not (self.root / path).is_file():
            return False
        with (self.root / path).open("rb") as file:
            return file.read(2) == b"#!"

    def _wanted(self, requirement: Requirement, extra: str) -> list[tuple[str, str]]:
        """Return a distribution's name, once bare and once with each extra, if this requirement applies."""
        name = str(canonicalize_name(requirement.name))
        if name in NEVER or not self._applies(requirement, extra):
            return []
        return [(name, ""), *((name, wanted) for wanted in requirement.extras)]

    def _applies(self, requirement: Requirement, extra: str) -> bool:
        if requirement.marker is None:
            return not extra
        plain = requirement.marker.evaluate({**self.target.markers, "extra": ""})
        return plain != bool(extra) and requirement.marker.evaluate({**self.target.markers, "extra": extra})

    @cached_property
    def _known(self) -> dict[str, importlib.metadata.Distribution]:
        found = importlib.metadata.distributions(path=[str(self.root)])
        return {str(canonicalize_name(d.metadata["Name"])): d for d in found}


def bytecode(path: Path, target: Target) -> Path:
    """Return the path of a source file's bytecode."""
    return path.parent / "__pycache__" / f"{path.stem}.cpython-{target.python.replace('.', '')}.pyc"


def install(project: Path, lock: Path, target: Target, indexes: tuple[str, ...] = ()) -> Distributions:
    """Return a lock file's tree for a target, from the project's cache or newly installed. Requires `build_lock`.

    Args:
        indexes: uv arguments that name additional indexes.

    Raises:
        ConfigError: a distribution has no wheel for the target.
    """
    interpreter = target.interpreter()
    key = hashlib.sha256(repr((lock.read_bytes(), target, interpreter, _LAYOUT)).encode()).hexdigest()[:16]
    cache = project / CACHE_FOLDER
    tree = Distributions(cache / key / "packages", target, interpreter)
    if not tree.root.is_dir():
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            _install(project, lock, target, indexes, Path(folder) / "packages")
            if interpreter:
                compile_tree(interpreter, Path(folder) / "packages")
            (cache / key).mkdir(exist_ok=True)
            (Path(folder) / "packages").rename(tree.root)
        _delete_old_trees(cache, key)
    return tree


def _install(project: Path, lock: Path, target: Target, indexes: tuple[str, ...], folder: Path) -> None:
    which = ("--python-version", target.python, "--python-platform", target.platform, "--only-binary", ":all:")
    what = ("--target", str(folder), "--no-deps", "--require-hashes", "-r", str(lock))
    try:
        uv("pip", "install", "-q", *THIS_PYTHON, *what, *which, *indexes, project=project)
    except UvError as error:
        no_wheel = explain_missing_wheel(str(error), f"Python {target.python} on {target.architecture}")
        raise ConfigError(no_wheel or f"the locked requirements cannot be installed: {error}") from None


def compile_tree(interpreter: str, root: Path, *folders: str) -> None:
    """Write bytecode that is never checked against its source, because Lambda's disk is read-only.

    Files that do not compile (some distributions ship templates) get none. `folders` restricts it to those folders of
    the root. https://docs.python.org/3/library/compileall.html
    """
    options = ["-q", "-q", "-j", "0", "--invalidation-mode", "unchecked-hash", "-s", str(root), "-p", TASK_ROOT]
    places = [str(root / folder) for folder in folders] or [str(root)]
    subprocess.run([interpreter, "-I", "-m", "compileall", *options, *places], capture_output=True, check=False)


@contextmanager
def build_lock(project: Path) -> Iterator[None]:
    """Serialize builds: `sam build --parallel` builds functions concurrently; the first makes lock file and tree."""
    cache = project / CACHE_FOLDER
    try:
        cache.mkdir(exist_ok=True)
        (cache / ".gitignore").write_text("*\n")
    except OSError as error:
        raise ConfigError(f"{cache}: {error.strerror}; the build cache must be writable.") from None
    with (cache / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _delete_old_trees(cache: Path, key: str) -> None:
    """Keep only the newest few trees: one per runtime and architecture in use."""
    trees = sorted((p for p in cache.iterdir() if (p / "packages").is_dir()), key=lambda p: p.stat().st_mtime)
    for old in [p for p in trees if p.name != key][:-3]:
        shutil.rmtree(old)
