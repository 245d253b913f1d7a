"""Generated distributions, artifacts built from them, and real artifacts of the quickstart."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import platform
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from dspy_lambda_infra.artifact.build import Built, build
from dspy_lambda_infra.artifact.target import Target
from dspy_lambda_infra.project import load_project
from tests.conftest import QUICKSTART

# This Python on this machine's architecture: its artifacts can run here.
HERE = Target("{}.{}".format(*sys.version_info), "arm64" if platform.machine() in ("arm64", "aarch64") else "x86_64")
Build = Callable[..., Built]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty project folder."""
    folder = tmp_path / "project"
    folder.mkdir()
    return folder


@dataclass(frozen=True)
class Index:
    """A folder of wheels, the only index for uv."""

    folder: Path

    def add(
        self,
        name: str,
        version: str = "1.0",
        requires: Iterable[str] = (),
        extras: Iterable[str] = (),
        files: dict[str, str] | None = None,
        tag: str = "py3-none-any",
    ) -> None:
        """Add a wheel: a package with an `__init__.py` and these files."""
        stem = f"{name.replace('-', '_')}-{version}"
        listed = [("Provides-Extra", extra) for extra in extras] + [("Requires-Dist", line) for line in requires]
        metadata = [("Metadata-Version", "2.1"), ("Name", name), ("Version", version), *listed]
        texts = {
            f"{name.replace('-', '_')}/__init__.py": f"version = {version!r}\n",
            **(files or {}),
            f"{stem}.dist-info/METADATA": "".join(f"{key}: {value}\n" for key, value in metadata),
            f"{stem}.dist-info/WHEEL": f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n",
        }
        record = [f"{path},sha256={_hash(text)},{len(text.encode())}\n" for path, text in texts.items()]
        texts[f"{stem}.dist-info/RECORD"] = "".join([*record, f"{stem}.dist-info/RECORD,,\n"])
        with zipfile.ZipFile(self.folder / f"{stem}-{tag}.whl", "w") as wheel:
            for path, text in texts.items():
                wheel.writestr(path, text)


def _hash(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


@pytest.fixture(scope="session")
def _uv_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("uv-cache")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, _uv_cache: Path) -> Index:
    """A local index, so that these tests need no network."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    settings = folder / "uv.toml"
    settings.write_text(f'no-index = true\nfind-links = ["{folder}"]\n')
    monkeypatch.setenv("UV_CONFIG_FILE", str(settings))
    monkeypatch.setenv("UV_CACHE_DIR", str(_uv_cache))
    return Index(folder)


@pytest.fixture
def stand_ins(index: Index) -> Index:
    """Empty distributions that replace all of the handler's requirements."""
    for line in importlib.metadata.requires("dspy-lambda") or []:
        requirement = Requirement(line)
        if "extra ==" not in line:
            least = next(s.version for s in requirement.specifier if s.operator == ">=")
            requires = ("litellm", "openai") if requirement.name == "dspy" else ()
            index.add(requirement.name, least, requires)
    index.add("litellm", requires=("tokenizers",))
    index.add("tokenizers")
    index.add("openai")
    return index


@pytest.fixture
def quick_build(stand_ins: Index, tmp_path: Path) -> Build:
    """Build a project's function from empty distributions; `said` collects the lines for the user."""

    def make(project: Path, name: str = "Echo", output: Path | None = None, said: list[str] | None = None) -> Built:
        lines = said if said is not None else []
        return build(load_project(project), name, HERE, output or tmp_path / "artifact", lines.append)

    return make


def contents(folder: Path) -> dict[str, bytes]:
    """Return all files in a folder, recursively."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def top(folder):
    """Return the names that can be imported from an artifact."""
    return {path.name for path in folder.iterdir() if not path.name.endswith(".dist-info")}


@dataclass(frozen=True)
class Quickstart:
    """A copy of the quickstart, and its artifacts for this Python."""

    root: Path
    program: Path
    catalogue: Path
    without_http: Path


def copy_quickstart(to: Path) -> Path:
    """Copy the quickstart without its cache, and with Summarise not called over HTTP."""
    shutil.copytree(QUICKSTART, to, ignore=shutil.ignore_patterns(".dspy-lambda", "__pycache__"))
    config = yaml.safe_load((to / "dspy.config.yaml").read_text())
    config["lambda"]["programs"]["Summarise"] = {"http": False}
    (to / "dspy.config.yaml").write_text(yaml.safe_dump(config))
    return to


def command(project: Path, function: str, output: Path) -> list[str]:
    """Run `dspy-lambda build` for this Python."""
    target = ["--python", HERE.python, "--architecture", HERE.architecture]
    options = ["--project", str(project), "--function", function, "--output", str(output), *target]
    return [sys.executable, "-m", "dspy_lambda_infra.cli", "build", *options]


@pytest.fixture(scope="session")
def quickstart(pypi: None, tmp_path_factory: pytest.TempPathFactory) -> Quickstart:
    """Real artifacts; the first two are built concurrently, as `sam build --parallel` does."""
    folder = tmp_path_factory.mktemp("quickstart")
    built = Quickstart(copy_quickstart(folder / "project"), folder / "program", folder / "catalogue", folder / "queue")
    commands = [
        command(built.root, "Answer", built.program),
        command(built.root, "CatalogueFunction", built.catalogue),
    ]
    started = [subprocess.Popen(c, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for c in commands]
    for process in started:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    build(load_project(built.root), "Summarise", HERE, built.without_http, print)
    return built
