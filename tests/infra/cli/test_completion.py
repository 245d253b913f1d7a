import os
import subprocess
import sys

import pytest

from dspy_lambda_infra.cli.completion import program_names
from dspy_lambda_infra.project import load_project
from tests.conftest import QUICKSTART
from tests.support import AECHO, ECHO

COMMAND = [sys.executable, "-m", "dspy_lambda_infra.cli"]
CHAIN = """
class Second(First):
    pass
class First(dspy.Module):
    pass
class _Private(dspy.Module):
    pass
class Question(dspy.Signature):
    pass
"""


def complete(*words):
    """Return bash's completions for the last word."""
    line = ["dspy-lambda", *words]
    variables = {
        "_DSPY_LAMBDA_COMPLETE": "complete_bash",
        "COMP_WORDS": " ".join(line),
        "COMP_CWORD": str(len(line) - 1),
    }
    return subprocess.run(
        COMMAND, env={**os.environ, **variables}, capture_output=True, text=True, timeout=60, check=True
    ).stdout.split()


def test_completion_finds_the_quickstarts_programs_without_importing_them():
    assert program_names(QUICKSTART) == list(load_project(QUICKSTART).functions)


def test_completion_lists_public_modules_and_skips_unreadable_files(make_project):
    project = make_project({"chain": CHAIN, "half_written": "class Half(dspy.Module", "_private": ECHO})
    assert program_names(project) == ["First", "Second"]


def test_completion_in_a_folder_without_a_project_is_empty(tmp_path):
    assert program_names(tmp_path) == []


@pytest.mark.parametrize("words", [["invoke"], ["build", "--function"], ["doctor", "--function"]], ids=" ".join)
def test_completion_offers_the_named_projects_programs(make_project, words):
    command, *option = words
    project = make_project({"echo": ECHO, "aecho": AECHO})
    assert complete(command, "--project", str(project), *option, "A") == ["AEcho"]


def test_completion_offers_commands():
    assert complete("de") == ["deploy"]


def test_completion_scripts_can_be_shown_and_installed(tmp_path):
    variables = {**os.environ, "HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    shown, installed = (
        subprocess.run([*COMMAND, option, "bash"], env=variables, capture_output=True, text=True, timeout=60)
        for option in ("--show-completion", "--install-completion")
    )
    assert "_DSPY_LAMBDA_COMPLETE=complete_bash" in shown.stdout
    assert installed.returncode == 0
    assert [path for path in tmp_path.rglob("*dspy-lambda*") if "_DSPY_LAMBDA_COMPLETE" in path.read_text()]
