import json
import os
import signal
import subprocess
import sys
from functools import partial

import pytest

from dspy_lambda_infra.cli import main
from tests.infra.traces import otlp
from tests.infra.traces.otlp import REQUEST, request

COMMAND = [sys.executable, "-m", "dspy_lambda_infra.cli", "trace"]


def text(*calls):
    return "".join(json.dumps(request(*call)) + "\n" for call in calls)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "traces.jsonl"
    path.write_text(text(otlp.call(gen_ai__input__messages="ask"), otlp.call("last", "e" * 32, 101, later=5_000)))
    return str(path)


def test_a_call_is_drawn(file, capsys):
    assert main(["trace", REQUEST, "--file", file]) == 0
    out = capsys.readouterr().out
    assert f"request {REQUEST}" in out
    assert len([line for line in out.splitlines() if "█" in line]) == 8
    assert "ask" not in out


def test_payloads_are_shown_on_request(file, capsys):
    assert main(["trace", REQUEST, "--file", file, "--payloads"]) == 0
    assert "ask" in capsys.readouterr().out


def test_the_last_call_is_the_one_that_started_last(file, capsys):
    assert main(["trace", "--last", "--file", file]) == 0
    assert "request last" in capsys.readouterr().out


def test_json_is_one_line_with_all_spans(file, capsys):
    assert main(["trace", REQUEST, "--file", file, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["spans"]
    assert (len(found), found[0]["name"], found[0]["attributes"]["faas.invocation_id"]) == (8, "POST /Qa", REQUEST)


@pytest.mark.parametrize("name", [["nobody"], ["\x1b[2J"]])
def test_an_unknown_call_is_explained(file, capsys, name):
    assert main(["trace", *name, "--file", file]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.rstrip().isprintable()
    for hint in (f"in {file}", "telemetry.traces", "telemetry.sample", "try again", "dspy-lambda logs --request"):
        assert hint in err


def test_a_file_without_calls_has_no_last_one(tmp_path, capsys):
    (tmp_path / "empty").write_bytes(b"\xff\n{}\n")
    assert main(["trace", "--last", "--file", str(tmp_path / "empty")]) == 1
    assert "no trace in" in capsys.readouterr().err


def test_a_missing_file_is_a_usage_error(tmp_path, capsys):
    assert main(["trace", "--last", "--file", str(tmp_path / "none")]) == 2
    assert "none: No such file" in capsys.readouterr().err


def test_spans_are_read_from_standard_input():
    found = subprocess.run([*COMMAND, "--last"], input=text(otlp.call()).encode(), capture_output=True, timeout=60)
    assert (found.returncode, b"POST /Qa" in found.stdout) == (0, True)


def test_an_ascii_terminal_gets_a_drawing_in_ascii(file):
    variables = {**os.environ, "PYTHONIOENCODING": "ascii"}
    found = subprocess.run([*COMMAND, "--last", "--file", file], env=variables, capture_output=True, timeout=60)
    assert found.returncode == 0
    assert b"`- invoke_workflow Qa" in found.stdout
    assert b"\\u" not in found.stdout


def test_following_draws_each_new_call_until_ctrl_c(file):
    # Unlike a shell's background jobs, it receives SIGINT.
    receive = partial(signal.signal, signal.SIGINT, signal.default_int_handler)
    command = [*COMMAND, "--follow", "--file", file]
    with subprocess.Popen(command, stdout=-1, stderr=-1, text=True, preexec_fn=receive) as process:
        assert "waiting for calls" in process.stderr.readline()
        with open(file, "a") as appended:
            appended.write(text(otlp.call("new-1", "d" * 32, 301, later=9_000)))
        shown = [process.stdout.readline() for _ in range(2)]
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert "request new-1" in shown[0]
    assert shown[1].startswith("POST /Qa")
    assert process.returncode == 130
