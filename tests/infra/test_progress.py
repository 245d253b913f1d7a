import io
import os
import pty
import re
import subprocess
import sys

import pytest

from dspy_lambda_infra.progress import progress, step, steps
from tests.support import read_terminal

WORK = """
import sys
from dspy_lambda_infra.progress import progress, step, steps
with steps(2):
    step("first [x]")
    progress("half")
    step("second")
    print("a warning", file=sys.stderr)
print("the result")
"""
COLOR = re.compile(rb"\x1b\[[0-9;]*3[0-9]")


def work(*, terminal, **variables):
    """Return what it writes to standard output (a pipe) and standard error (a terminal or a pipe)."""
    environment = {**os.environ, "TERM": "xterm-256color", **variables}
    screen, end = pty.openpty() if terminal else os.pipe()
    with subprocess.Popen([sys.executable, "-c", WORK], stdout=-1, stderr=end, env=environment) as process:
        os.close(end)
        shown = read_terminal(screen)
        out = process.stdout.read()
    return out, shown


def test_a_terminal_gets_a_progress_bar_and_results_stay_on_stdout():
    out, shown = work(terminal=True)
    assert out == b"the result\n"
    assert b"\x1b[" in shown
    assert COLOR.search(shown)
    for text in (b"second", b"1/2", b"a warning"):
        assert text in shown


def test_no_color_disables_colors_in_the_progress_bar():
    out, shown = work(terminal=True, NO_COLOR="1")
    assert out == b"the result\n"
    assert b"second" in shown
    assert not COLOR.search(shown)


@pytest.mark.parametrize("variables", [{}, {"FORCE_COLOR": "1"}], ids=["plain", "FORCE_COLOR"])
def test_a_pipe_gets_no_progress_bar_and_no_escape_codes(variables):
    assert work(terminal=False, **variables) == (b"the result\n", b"a warning\n")


def test_a_terminal_without_cursor_movement_gets_a_line_for_each_step():
    _, shown = work(terminal=True, TERM="dumb")
    assert shown.splitlines() == [b"first [x]", b"half", b"second", b"a warning"]


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_shown_only_on_a_terminal(monkeypatch, terminal):
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: terminal)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "dumb")
    progress("loading ...")
    with steps(1):
        step("building ...")
    assert stream.getvalue() == ("loading ...\nbuilding ...\n" if terminal else "")
