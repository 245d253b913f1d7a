import sys

import pytest

from dspy_lambda_infra.artifact import target as target_module
from dspy_lambda_infra.artifact.target import Target
from dspy_lambda_infra.artifact.uv import UvError
from tests.infra.artifact.conftest import HERE


def test_this_python_is_the_interpreter_of_its_own_version():
    assert HERE.interpreter() == sys.executable


def test_an_inactive_pyenv_version_is_found_as_the_interpreter(tmp_path, monkeypatch):
    other = "3.13" if HERE.python != "3.13" else "3.12"

    def nothing_found(*_):
        raise UvError("none")

    monkeypatch.setattr(target_module, "uv", nothing_found)
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert Target(other, "arm64").interpreter() is None
    for version, status in (("0", 1), ("1", 0)):  # the first one only has the right name
        python = tmp_path / "versions" / f"{other}.{version}" / "bin" / f"python{other}"
        python.parent.mkdir(parents=True)
        python.write_text(f"#!/bin/sh\nexit {status}\n")
        python.chmod(0o755)
    assert Target(other, "arm64").interpreter() == str(python)


@pytest.mark.parametrize(
    ("target", "platform"),
    [
        (Target("3.11", "x86_64"), "x86_64-manylinux2014"),
        (Target("3.12", "arm64"), "aarch64-manylinux_2_34"),
        (Target("3.13", "x86_64"), "x86_64-manylinux_2_34"),
        (Target("3.14", "arm64"), "aarch64-manylinux_2_34"),
    ],
)
def test_the_target_platform_matches_the_runtime(target, platform):
    assert target.platform == platform
