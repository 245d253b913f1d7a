"""Where lines come from; the local Lambda's observer runs here, CloudWatch is moto's."""

import io
import itertools
import json
import os
import subprocess
import sys

import pytest

from dspy_lambda.errors import ConfigError
from dspy_lambda_infra.logs.sources import (
    MAX_LINE,
    NotRunning,
    from_cloudwatch,
    from_file,
    from_local,
    hint_at_idle_stdin,
    split,
    stdin_is_piped,
)
from tests.infra.logs.lines import line
from tests.infra.test_cloudwatch import NOW, put


def test_a_stream_is_split_and_of_too_long_lines_only_the_beginning_is_read():
    long = b"x" * (3 * MAX_LINE + 5)
    found = list(split(io.BytesIO(b"a\n" + long + b"\nb\n" + b"half")))
    assert [len(one) for one in found] == [2, MAX_LINE, 2, 4]
    assert found[-1] == b"half"


def test_a_line_of_exactly_the_maximum_is_whole():
    assert list(split(io.BytesIO(b"x" * (MAX_LINE - 1) + b"\nb\n"))) == [b"x" * (MAX_LINE - 1) + b"\n", b"b\n"]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.log: No such file"):
        list(from_file(tmp_path / "none.log"))


def test_following_a_file_waits_for_whole_lines_and_survives_its_replacement(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"one\ntw")

    def append():
        with path.open("ab") as file:
            file.write(b"o\nthree\n")

    def replace():
        (tmp_path / "new").write_bytes(b"four\n")
        os.replace(tmp_path / "new", path)

    def empty():
        path.write_bytes(b"")

    steps = iter([append, replace, lambda: None, empty, lambda: path.write_bytes(b"five\n"), lambda: None])
    found = from_file(path, follow=True, pause=lambda _: next(steps)())
    assert list(itertools.islice(found, 5)) == [b"one\n", b"two\n", b"three\n", b"four\n", b"five\n"]


@pytest.mark.parametrize("follow", [False, True])
def test_the_local_lambdas_lines_are_read(observer, tmp_path, follow):
    found, loop = observer
    for program in ("Answer", "Triage"):
        loop.call_soon_threadsafe(found.add_line, line(program=program).decode().rstrip())
    read = itertools.islice(from_local(tmp_path, follow=follow, since=None), 2)
    assert [json.loads(one)["program"] for one in read] == ["Answer", "Triage"]


def test_without_a_local_lambda_the_message_says_what_to_do(tmp_path):
    with pytest.raises(NotRunning, match="dspy-lambda local"):
        list(from_local(tmp_path, follow=False, since=None))


def test_standard_input_counts_if_something_is_piped(monkeypatch):
    read, write = os.pipe()
    with os.fdopen(read) as piped, open(os.devnull) as null:
        for stream, expected in ((piped, True), (null, False), (io.StringIO(), False), (None, False)):
            monkeypatch.setattr("sys.stdin", stream)
            assert stdin_is_piped() is expected
    os.close(write)


def test_a_stacks_lines_are_read(log_groups, monkeypatch):
    from dspy_lambda_infra.cloudwatch import CloudWatch

    monkeypatch.setattr(CloudWatch, "functions", lambda self, stack: {"a": "/groups/a", "b": "/groups/b"})
    put(log_groups, "/groups/a", line().decode(), at=NOW)
    put(log_groups, "/groups/b", line(program="Triage").decode(), at=NOW - 5)
    options = {"follow": False, "since": None, "until": None, "all_lines": False}
    found = list(from_cloudwatch("qa-prod", "us-east-1", **options))
    assert [json.loads(one)["program"] for one in found] == ["Triage", "Answer"]


@pytest.mark.parametrize("written", [None, b"", b"line\n"])
def test_a_pipe_that_nobody_writes_to_is_hinted_at(written, capsys):
    reading, writing = os.pipe()
    with open(reading, "rb") as stream, open(writing, "wb", buffering=0) as end:
        if written is not None:
            end.write(written)
            end.close()
        hint_at_idle_stdin(stream, 0)
        assert ("waiting for standard input" in capsys.readouterr().err) == (written is None)


def test_a_stream_without_a_file_needs_no_hint(capsys):
    hint_at_idle_stdin(io.BytesIO(), 0)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("command", [["logs"], ["trace", "--last"]])
def test_commands_hint_before_they_wait_for_an_idle_pipe(command):
    started = subprocess.Popen(
        [sys.executable, "-m", "dspy_lambda_infra.cli", *command],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with started:
        assert "waiting for standard input" in started.stderr.readline()
        started.communicate()
    assert started.returncode == (0 if command == ["logs"] else 1)
