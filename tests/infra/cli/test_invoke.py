import io
import json
import os
import pty
import subprocess
import sys

import pytest

from dspy_lambda_infra.cli import main
from tests.conftest import QUICKSTART
from tests.support import read_terminal

OPTIONS = ["--project", str(QUICKSTART), "--model-server"]
INPUTS = '{"question": "q"}'
ANSWER = {"program": "Answer", "outputs": {"answer": "A sample answer."}}


def test_invoke_accepts_inputs_as_a_positional_argument(capfd):
    assert main(["invoke", "Answer", INPUTS, *OPTIONS]) == 0
    assert json.loads(capfd.readouterr().out) == ANSWER


def test_invoke_reads_inputs_from_standard_input(capfd, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(INPUTS.encode())))
    assert main(["invoke", "Answer", "-", *OPTIONS]) == 0
    assert json.loads(capfd.readouterr().out) == ANSWER


@pytest.mark.parametrize(("option", "lines"), [([], 6), (["--json"], 1)], ids=["text", "json"])
def test_invoke_indents_the_answer_on_a_terminal_unless_json_is_given(option, lines):
    terminal, end = pty.openpty()
    command = [sys.executable, "-m", "dspy_lambda_infra.cli", "invoke", "Answer", INPUTS, *OPTIONS, *option]
    with subprocess.Popen(command, stdout=end, stderr=subprocess.PIPE):
        os.close(end)
        shown = read_terminal(terminal)
    assert json.loads(shown) == ANSWER
    assert len(shown.splitlines()) == lines
