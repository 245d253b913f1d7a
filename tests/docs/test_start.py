"""Commands print what the pages show."""

import os
import re
import shlex
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.docs.pages import blocks, sessions

CLI = [sys.executable, "-c", "import sys; from dspy_lambda_infra.cli import main; sys.exit(main(sys.argv[1:]))"]
# Identical blocks on several pages run once.
SESSIONS = sorted({session for block in blocks("console") for session in sessions(block)})
HTTP = [session for session in SESSIONS if session[0].startswith("curl ")]
COMMANDS = [session for session in SESSIONS if session[0].startswith("dspy-lambda ")]


def expected(shown):
    """Return the shown output as a pattern, in which `...` matches anything."""
    return ".*".join(map(re.escape, shown.strip().split("...")))


@pytest.fixture(scope="module")
def address():
    """Run what `make serve` runs on a free port, and yield the address."""
    recipe = re.search(r"dspy-lambda (local .*--port )3000( .*?) \|\|", (ROOT / "Makefile").read_text())
    assert recipe is not None
    arguments = shlex.split(f"{recipe[1]}0{recipe[2]}".replace("$(PROJECT)", "examples/quickstart"))
    with subprocess.Popen([*CLI, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            ready = next(line for line in process.stdout if line.startswith("ready "))
            yield ready.split()[1]
        finally:
            process.terminate()


def test_every_console_block_is_run_by_a_test():
    assert len(HTTP) == 2
    assert len(COMMANDS) == 2
    assert {command for command, _ in SESSIONS} - {c for c, _ in HTTP + COMMANDS} == {". .venv/bin/activate"}


@pytest.mark.parametrize(("command", "shown"), HTTP)
def test_documented_requests_to_make_serve_get_the_documented_answers(command, shown, address):
    words = shlex.split(command.replace("localhost:3000", address))
    printed = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    assert re.fullmatch(expected(shown), printed.strip()), printed


@pytest.mark.parametrize(("command", "shown"), COMMANDS)
def test_documented_commands_print_the_documented_output(command, shown):
    words = [*CLI, *shlex.split(command)[1:]]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("DSPY_LAMBDA_")}
    done = subprocess.run(words, cwd=ROOT, env=environ, check=True, capture_output=True, text=True)
    assert re.fullmatch(expected(shown), done.stdout.strip(), re.S), done.stdout
