"""Requirements that try to run code while they are locked and installed."""

import tarfile

import pytest

from dspy_lambda.errors import ConfigError
from dspy_lambda_infra.artifact.distributions import build_lock, install
from dspy_lambda_infra.artifact.lock import lock
from dspy_lambda_infra.artifact.requirements import Requirements, read_requirements
from dspy_lambda_infra.artifact.uv import uv
from tests.infra.artifact.conftest import HERE

RAN = "import pathlib; pathlib.Path({ran!r}).write_text('ran')\n"
# A fake setuptools that runs setup.py like the real one; an isolated build gets it from the index.
SETUPTOOLS = """
import pathlib, runpy
def _run(*_, **__):
    runpy.run_path("setup.py")
    raise SystemExit("setup.py ran")
class __legacy__: pass
for name in ("get_requires_for_build_wheel", "get_requires_for_build_editable", "build_wheel", "build_editable",
             "prepare_metadata_for_build_wheel", "prepare_metadata_for_build_editable"):
    globals()[name] = _run
    setattr(__legacy__, name, staticmethod(_run))
"""
PROJECT = """
[project]
name = "x"
version = "1"
requires-python = ">=3.11"
"""
OWN_BACKEND = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""

HOSTILE = {
    "only a source distribution": {"requirements.txt": "hostile"},
    "a folder": {"requirements.txt": "./hostile"},
    "an editable folder": {"requirements.txt": "-e ./hostile"},
    "a folder by its address": {"requirements.txt": "hostile @ file://{root}/hostile"},
    "an archive by its address": {"requirements.txt": "hostile @ file://{wheels}/hostile-1.0.tar.gz"},
    "an archive by its path": {"requirements.txt": "{wheels}/hostile-1.0.tar.gz"},
    "no wheels allowed": {"requirements.txt": "--no-binary=:all: # hostile\nhostile"},
    "an option for one requirement": {"requirements.txt": "--no-binary hostile\nhostile"},
    "in an included file": {"requirements.txt": "-r more.txt", "more.txt": "-e ./hostile"},
    "a requirement's requirement": {"requirements.txt": "innocent"},
    "a source in pyproject.toml": {
        "pyproject.toml": PROJECT
        + 'dependencies = ["hostile"]\n[tool.uv.sources]\nhostile = {{path = "hostile", editable = true}}\n'
    },
    "uv's own settings in pyproject.toml": {
        "pyproject.toml": PROJECT + 'dependencies = ["hostile"]\n[tool.uv]\nno-binary = true\nno-build = false\n'
    },
    "uv's settings in uv.toml": {"requirements.txt": "hostile", "uv.toml": "[pip]\nno-binary = [':all:']\n"},
    "the project's own backend": {
        "pyproject.toml": PROJECT + 'dynamic = ["optional-dependencies"]\ndependencies = []\n' + OWN_BACKEND,
        "backend.py": "{evil}",
    },
    "the project's own backend, locked": {
        "pyproject.toml": PROJECT + "dependencies = []\n" + OWN_BACKEND,
        "backend.py": "{evil}",
        "uv.lock": 'version = 1\nrevision = 3\nrequires-python = ">=3.11"\n\n[[package]]\nname = "x"\nversion = "1"\n'
        'source = {{ editable = "." }}\n',
    },
}

# The message if it is not the distribution's name.
NAMED = {
    "no wheels allowed": "'--no-binary=:all:' would build a distribution, which runs its setup.py",
    "the project's own backend": "pyproject.toml computes its dependencies",
    "the project's own backend, locked": "built",
}


@pytest.fixture
def hostile(index, root, tmp_path):
    """A project, and a distribution that writes a file when any of its code runs; returns that file too."""
    ran = tmp_path / "ran"
    evil = RAN.format(ran=str(ran))
    index.add("setuptools", "80.0", files={"setuptools/build_meta.py": SETUPTOOLS})
    index.add("innocent", requires=["hostile"])
    folder = root / "hostile"
    folder.mkdir()
    (folder / "setup.py").write_text(evil)
    with tarfile.open(index.folder / "hostile-1.0.tar.gz", "w:gz") as archive:
        archive.add(folder / "setup.py", "hostile-1.0/setup.py")

    def write(files):
        for name, text in files.items():
            (root / name).write_text(text.format(root=root, wheels=index.folder, evil=evil))
        return ran

    return write


@pytest.mark.parametrize("case", HOSTILE)
def test_a_requirement_that_would_run_code_is_refused_by_name(hostile, root, case):
    ran = hostile(HOSTILE[case])
    try:
        with build_lock(root):
            requirements = Requirements((), *_of_project(read_requirements(root)))
            locked = lock(root, requirements, HERE.python, litellm=False)
            install(root, locked, HERE, requirements.indexes)
        said = "built"
    except ConfigError as error:
        said = str(error)
    assert not ran.exists()
    assert NAMED.get(case, "hostile") in said


def _of_project(requirements):
    return requirements.project, requirements.listed, requirements.files, requirements.indexes


@pytest.mark.parametrize("requirement", ["hostile", "./hostile"])
def test_the_hostile_requirements_run_code_when_built_without_protection(hostile, root, requirement):
    ran = hostile({"requirements.txt": requirement})
    with pytest.raises(Exception, match=r"setup\.py|hostile"):
        uv("pip", "compile", "requirements.txt", project=root)
    assert ran.exists()
