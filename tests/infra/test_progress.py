import io
import sys

import pytest

from dspy_lambda_infra.progress import progress


@pytest.mark.parametrize("terminal", [True, False])
def test_only_a_terminal_hears_of_progress(monkeypatch, terminal):
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: terminal)
    monkeypatch.setattr(sys, "stderr", stream)
    progress("building ...")
    assert stream.getvalue() == ("building ...\n" if terminal else "")
