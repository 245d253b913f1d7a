import io
import os
import signal
import subprocess
import sys
from functools import partial

import pytest

from dspy_lambda_infra.cli import main
from tests.infra.logs.lines import BASE, OTHERS, line

COMMAND = [sys.executable, "-m", "dspy_lambda_infra.cli", "logs"]


@pytest.fixture
def log(tmp_path):
    """Return a function that writes a file of lines and returns its path."""

    def write(*lines):
        path = tmp_path / "function.log"
        path.write_bytes(b"".join(lines))
        return str(path)

    return write


def test_calls_and_totals_are_shown_and_other_lines_counted(log, capsys):
    cut = line()[:-30] + b"\n"
    assert main(["logs", log(line(), *OTHERS, line(program="Triage", outcome="deadline"), cut, b"\n")]) == 0
    out, err = capsys.readouterr()
    rows = out.splitlines()
    assert [row.split()[2:5] for row in rows[1:3]] == [
        ["Answer", "default", "success"],
        ["Triage", "default", "deadline"],
    ]
    assert any(row.startswith("total") and row.split()[1:3] == ["2", "1"] for row in rows)
    assert "100 ms -    200 ms" in rows[-1]
    assert err.splitlines() == [
        f"skipped {len(OTHERS)} other lines",
        "skipped 1 unreadable lines of calls: cut, or changed",
    ]


def test_only_selected_calls_are_shown_and_summed(log, capsys):
    file = log(line(), line(program="Triage"), line(program="Triage", outcome="deadline", duration_ms=2000))
    assert main(["logs", file, "--program", "Triage", "--failed", "--slow", "1.5", "--since", "2026-07-01T00:00Z"]) == 0
    assert [row.split()[2:4] for row in capsys.readouterr().out.splitlines()[3:5]] == [["calls", "errors"], ["1", "1"]]


def test_the_last_calls_are_shown_and_all_are_summed(log, capsys):
    file = log(*(line(function_request_id=f"request-{n}") for n in range(9)))
    assert main(["logs", file, "--limit", "2"]) == 0
    out = capsys.readouterr().out
    assert out.count("request-") == 2
    assert "... the last 2 of 9 calls" in out


def test_json_writes_selected_lines_unchanged(log, capfdbinary):
    wanted = b'{"message": "program call",  "outcome":"deadline", "duration_ms":1e2, "program":"\\u00fc"}'
    assert main(["logs", log(line(), *OTHERS, wanted), "--json", "--failed"]) == 0
    assert capfdbinary.readouterr().out == wanted + b"\n"


def test_lines_of_a_call_are_shown_with_it_and_only_with_it(log, capsys):
    def own(request, text):
        return line(message=text, function_request_id=request, outcome=None)

    file = log(own("r1", "first \x1b[2J"), own("r2", "of another"), own("r1", "second"), line(function_request_id="r1"))
    assert main(["logs", file, "--lines", "--request", "r1"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert rows[2:4] == ["    first \\x1b[2J", "    second"]
    assert not any("of another" in row for row in rows)


@pytest.mark.parametrize("options", [[], ["--tail", "--limit", "1"]])
def test_payloads_are_shown_on_request(log, capsys, options):
    file = log(line(inputs={"question": "why\x1b[2J"}, outputs_bytes=99))
    assert main(["logs", file, "--payloads", *options]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert rows[2:6] == ["    inputs:", "      question: why\\x1b[2J", "    outputs:", "      99 bytes"]


def test_no_calls_is_said(log, capsys):
    assert main(["logs", log(*OTHERS)]) == 0
    assert capsys.readouterr().out == "no calls\n"


def test_a_report_is_written_beside_the_totals(log, tmp_path, capsys):
    report = tmp_path / "report.html"
    assert main(["logs", log(line(program="<script>")), "--html", str(report)]) == 0
    assert "&lt;script&gt;" in report.read_text()
    assert f"wrote {report}" in capsys.readouterr().err


def test_a_report_that_cannot_be_written_is_an_error_before_reading(log, tmp_path, capsys):
    assert main(["logs", log(line()), "--html", str(tmp_path)]) == 2
    assert capsys.readouterr().out == ""


def test_standard_input_is_read_if_something_is_piped():
    found = subprocess.run(COMMAND, input=line() + b"\xff\n", capture_output=True, timeout=60)
    assert (found.returncode, b"Answer" in found.stdout) == (0, True)
    assert b"skipped 1 other lines" in found.stderr


def test_without_any_source_the_command_says_what_to_do(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert main(["logs", "--project", str(tmp_path)]) == 1
    assert "start one with `dspy-lambda local`" in capsys.readouterr().err


def test_ctrl_c_ends_following_with_the_totals_and_130(log):
    # Unlike a shell's background jobs, it receives SIGINT.
    receive = partial(signal.signal, signal.SIGINT, signal.default_int_handler)
    command = [*COMMAND, log(line()), "--tail"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=receive) as process:
        shown = [process.stdout.readline(), process.stdout.readline()]
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=60)
    assert BASE["function_request_id"] in shown[1]
    assert process.returncode == 130
    assert "p95 ms" in rest


def test_following_stops_after_the_limit(log, capsys):
    assert main(["logs", log(*[line()] * 5), "--tail", "--limit", "3"]) == 0
    assert capsys.readouterr().out.count(BASE["function_request_id"]) == 3


def test_an_ascii_terminal_gets_escapes(log):
    variables = {**os.environ, "PYTHONIOENCODING": "ascii"}
    found = subprocess.run([*COMMAND, log(line(program="Grüße"))], env=variables, capture_output=True, timeout=60)
    assert found.returncode == 0
    assert b"Gr\\xfc\\xdfe" in found.stdout
