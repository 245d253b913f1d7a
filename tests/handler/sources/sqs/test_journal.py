import subprocess
import sys

import pytest

from dspy_lambda.sources.sqs.journal import Journal


def test_a_successor_learns_what_ran_when_the_process_died(tmp_path):
    code = f"""
import os
from pathlib import Path
from dspy_lambda.sources.sqs.journal import Journal
mark = Journal(Path({str(tmp_path)!r})).begin([f"m{{n}}" for n in range(5)])
for n in range(4): mark(n, True)
mark(1, False)
os._exit(1)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 1
    assert Journal(tmp_path).died_with == ["m0", "m2", "m3"]


def test_it_learns_nothing_from_a_batch_that_ended(tmp_path):
    journal = Journal(tmp_path)
    journal.begin(["a", "b"])(0, True)
    journal.end()
    del journal
    assert Journal(tmp_path).died_with == []


def test_two_processes_do_not_share_one(tmp_path):
    first = Journal(tmp_path)
    code = f"""
from pathlib import Path
from dspy_lambda.sources.sqs.journal import Journal
Journal(Path({str(tmp_path)!r}))
"""
    second = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert "BlockingIOError" in second.stderr
    assert first.died_with == []


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 100, b"\x05\0\0\0\xff\xff\xff\xff", b"\x02\0\0\0\x02\0\0\0\x01\x01\xff\xff"]
)
def test_any_file_can_be_read(tmp_path, content):
    (tmp_path / "running").write_bytes(content)
    (tmp_path / "suspects.json").write_bytes(content)
    journal = Journal(tmp_path)
    assert isinstance(journal.died_with, list)
    assert journal.load() == {}


def test_a_batch_that_does_not_fit_is_not_noted(tmp_path):
    assert Journal(tmp_path).begin(["x" * 200] * 10_000) is None


def test_suspects_are_kept(tmp_path):
    journal = Journal(tmp_path)
    journal.keep({"a": 2, "b": 0})
    assert journal.load() == {"a": 2, "b": 0}
