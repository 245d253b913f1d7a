import os
import subprocess
import sys

import pytest

from dspy_lambda.sources.sqs.journal import Journal


def note(name):
    """What is noted of a record."""
    return {"messageId": f"m{name}", "receiptHandle": "handle", "eventSourceARN": "arn:aws:sqs:eu-west-1:1:q"}


def test_a_successor_learns_what_ran_when_the_process_died(tmp_path):
    code = f"""
import os
from pathlib import Path
from dspy_lambda.sources.sqs.journal import Journal
mark = Journal(Path({str(tmp_path)!r})).begin({[note(n) for n in range(6)]!r})
for n in range(5): mark(n, "running")
mark(1, "waiting")
mark(4, "done")
os._exit(1)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 1
    journal = Journal(tmp_path)
    assert journal.died_with == ["m0", "m2", "m3"]
    assert journal.done == [note(4)]


def test_what_was_done_is_noted_with_each_batch_until_it_is_taken_off(tmp_path):
    first = Journal(tmp_path)
    first.begin([note(0) | {"body": "x"}])(0, "done")
    del first
    second = Journal(tmp_path)
    second.begin([note(1), note(2)])(1, "running")
    del second
    third = Journal(tmp_path)
    assert (third.died_with, third.done) == (["m2"], [note(0)])
    third.done = []
    third.begin([note(3)])(0, "running")
    del third
    fourth = Journal(tmp_path)
    assert (fourth.died_with, fourth.done) == (["m3"], [])


def test_a_journal_outlives_a_process_that_dies_before_its_first_batch(tmp_path):
    first = Journal(tmp_path)
    mark = first.begin([note(0), note(1)])
    mark(0, "done")
    mark(1, "running")
    del first, mark
    second = Journal(tmp_path)
    del second
    third = Journal(tmp_path)
    assert (third.died_with, third.done) == ([], [note(0)])


@pytest.mark.parametrize("emptied", ["the folder's files", "the folder"])
def test_a_file_that_a_program_has_removed_is_made_again_with_the_next_batch(tmp_path, emptied):
    folder = tmp_path / "journal"
    first = Journal(folder)
    late = first.begin([note(0)])
    (folder / "running").unlink()
    if emptied == "the folder":
        folder.rmdir()
    mark = first.begin([note(1), note(2)])
    mark(0, "done")
    mark(1, "running")
    late(0, "waiting")
    del first, mark
    second = Journal(folder)
    assert (second.died_with, second.done) == (["m2"], [note(1)])


def test_one_that_cannot_be_made_again_costs_the_note_only(tmp_path):
    folder = tmp_path / "journal"
    journal = Journal(folder)
    (folder / "running").unlink()
    folder.rmdir()
    folder.write_text("in the way")
    assert journal.begin([note(0)]) is None
    folder.unlink()
    assert journal.begin([note(0)]) is not None


@pytest.mark.parametrize("record", [None, "x", {}, {"messageId": 1}, {"messageId": "m", "receiptHandle": None}])
def test_a_record_that_cannot_be_deleted_is_not_done(tmp_path, record):
    first = Journal(tmp_path)
    first.begin([record])(0, "done")
    del first
    assert Journal(tmp_path).done == []


def test_a_journal_teaches_nothing_of_a_batch_that_ended(tmp_path):
    journal = Journal(tmp_path)
    journal.begin([note(0), note(1)])(0, "running")
    journal.end()
    del journal
    assert Journal(tmp_path).died_with == []


def test_what_was_done_stays_noted_after_a_batch_has_ended(tmp_path):
    first = Journal(tmp_path)
    first.begin([note(0)])(0, "done")
    del first
    second = Journal(tmp_path)
    second.begin([note(1)])
    second.end()
    del second
    assert Journal(tmp_path).done == [note(0)]


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
    "content",
    [
        b"",
        b"\xff" * 100,
        b"\x05\0\0\0\xff\xff\xff\xff",
        b"\x02\0\0\0\x02\0\0\0\x01\x01\xff\xff",
        b"\x01\0\0\0\x02\0\0\0\x02{}",
        b"\x01\0\0\0\x04\0\0\0\x02[{}]",
        b"\x01\0\0\0\x04\0\0\0\x02[[]]",
        b"\x01\0\0\0\xff\xff\0\0\x02" + b"[" * 0xFFFF,
    ],
)
def test_any_file_can_be_read(tmp_path, content):
    (tmp_path / "running").write_bytes(content)
    (tmp_path / "suspects.json").write_bytes(content)
    journal = Journal(tmp_path)
    assert isinstance(journal.died_with, list)
    assert journal.done == []
    assert journal.load() == {}


def test_a_batch_that_does_not_fit_is_not_noted(tmp_path):
    assert Journal(tmp_path).begin([note("x" * 2000)] * 10_000) is None


def test_a_journal_works_without_posix_fallocate_as_on_macos(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "posix_fallocate")
    first = Journal(tmp_path)
    first.begin([note(0)])(0, "done")
    del first
    assert Journal(tmp_path).done == [note(0)]


def test_suspects_are_kept(tmp_path):
    journal = Journal(tmp_path)
    journal.keep({"a": 2, "b": 0})
    assert journal.load() == {"a": 2, "b": 0}
