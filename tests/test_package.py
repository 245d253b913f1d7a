"""The content of a release, built from a checkout with generated files in it."""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import dspy_lambda
from dspy_lambda_infra.artifact.uv import UvError, uv

ROOT = Path(__file__).resolve().parent.parent
TRACES = [
    "handler/dspy_lambda/__pycache__/x.pyc",
    ".env",
    "dist/old.whl",
    ".aws-sam/x",
    "examples/quickstart/.env",
    "site/x",
]


def make_release(source: Path) -> Path:
    """Build wheel and sdist from a copy of this checkout with generated files; return their folder."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    for name in [*listed.stdout.split("\0")[:-1], *TRACES]:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        if name in TRACES:
            (source / name).write_text("left by a run")
        elif (ROOT / name).is_file():
            shutil.copy(ROOT / name, source / name)
    for target in ("wheel", "sdist"):
        hatchling(source, target)
    return source / "dist"


def hatchling(source: Path, target: str) -> None:
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", target], cwd=source, check=True)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return make_release(tmp_path_factory.mktemp("package"))


def test_the_wheel_puts_two_packages_and_its_metadata_into_site_packages(built):
    (path,) = built.glob("dspy_lambda-*.whl")
    with zipfile.ZipFile(path) as wheel:
        names = wheel.namelist()
        metadata = wheel.read(f"dspy_lambda-{dspy_lambda.__version__}.dist-info/METADATA").decode()
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"dspy_lambda", "dspy_lambda_infra", f"dspy_lambda-{dspy_lambda.__version__}.dist-info"}
    assert {f"{top}/py.typed" for top in tops if ".dist-info" not in top} <= set(names)
    assert not [name for name in names if name.endswith((".pyc", ".env"))]
    assert f"Version: {dspy_lambda.__version__}\n" in metadata
    assert "License-Expression: MIT\n" in metadata
    assert "Description-Content-Type: text/markdown\n" in metadata
    assert metadata.endswith((ROOT / "README.md").read_text())


def test_the_sdist_contains_the_sources_and_no_generated_files(built):
    (path,) = built.glob("dspy_lambda-*.tar.gz")
    with tarfile.open(path) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {
        "LICENSE",
        "README.md",
        "CHANGELOG.md",
        ".ci/run",
        "Makefile",
        "requirements/dev.txt",
        "mkdocs.yml",
        "docs/index.md",
        "docs/generate.py",
        "docs/reference/config.md",
        "tests/test_package.py",
    } <= names
    assert not names & set(TRACES)
    assert not [name for name in names if "__pycache__" in name]


def test_the_sdist_builds_the_same_wheel(built, tmp_path):
    (path,) = built.glob("dspy_lambda-*.tar.gz")
    with tarfile.open(path) as sdist:
        sdist.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    hatchling(source, "wheel")
    first, second = (
        {n: w.read(n) for n in w.namelist()}
        for w in map(zipfile.ZipFile, [*built.glob("dspy_lambda-*.whl"), *(source / "dist").glob("*.whl")])
    )
    assert first == second


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """The commands folder of a new environment with the wheel and its requirements, but no extra."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    (wheel,) = built.glob("dspy_lambda-*.whl")
    try:
        uv("venv", "-q", "--python", sys.executable, str(folder))
        uv("pip", "install", "-q", "--python", str(folder / "bin" / "python"), str(wheel))
    except UvError as error:
        if "Failed to fetch" not in str(error):
            raise
        pytest.skip(f"needs PyPI: {error}")
    return folder / "bin"


def run(installed, *words):
    command = [str(installed / "dspy-lambda"), *words]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=installed)
    return found.returncode, found.stdout, found.stderr


def test_version_works_without_the_cli_extra(installed):
    status, out, err = run(installed, "--version")
    assert (status, err) == (0, "")
    assert out.startswith(f"dspy-lambda {dspy_lambda.__version__} (DSPy 3.")


@pytest.mark.parametrize("command", ["local", "invoke", "serve", "template", "build", "deploy", "limits", "doctor"])
def test_a_command_without_the_cli_extra_names_it_in_one_line(installed, command):
    line = 'dspy-lambda: this command requires the cli extra: pip install "dspy-lambda[cli]"\n'
    assert run(installed, command) == (2, "", line)


def test_an_environment_without_the_cli_extra_contains_only_the_packages_and_their_requirements(installed):
    (site,) = (installed.parent / "lib").glob("python3*/site-packages")
    names = {path.name for path in site.iterdir()}
    assert {"dspy_lambda", "dspy_lambda_infra", f"dspy_lambda-{dspy_lambda.__version__}.dist-info"} <= names
    assert not names & {"handler", "infra", "tests", "typer", "aiohttp_cors", "moto", "samtranslator"}
