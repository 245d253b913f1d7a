import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspy_lambda.sources.sqs.journal import Journal
from dspy_lambda.sources.sqs.record import Record
from dspy_lambda.sources.sqs.suspects import Suspects


def record(name, received=1, position=0):
    raw = {"messageId": name, "attributes": {"ApproximateReceiveCount": str(received)}}
    return Record(position, name, None, raw=raw)


def groups(*records):
    return [[one] for one in records]


def names(found):
    return [one.identifier for group in found for one in group]


def test_new_records_start_together_and_returned_records_after_them():
    first, behind = Suspects(None).split(groups(record("back", 2), record("new"), record("again", 5)))
    assert (names(first), sorted(names(behind))) == (["new"], ["again", "back"])


def test_a_suspect_without_other_records_starts_at_once():
    assert Suspects(None).split(groups(record("back", 3))) == (groups(record("back", 3)), [])


def test_a_suspect_that_was_running_alone_starts_last(tmp_path):
    suspects = Suspects(None)
    suspects.suspect(["a", "b"], alone=False)
    suspects.suspect(["a"], alone=True)
    _, behind = suspects.split(groups(record("a", 3), record("b", 3), record("c", 2), record("d")))
    assert names(behind) == ["c", "b", "a"]


def test_returned_records_run_alone_until_a_batch_of_them_has_survived():
    suspects, waiting = Suspects(None), groups(*(record(f"m{n}", 2) for n in range(10)))
    assert suspects.number_to_start(waiting, 10, None, None) == 1
    suspects.survived(came_back=9, records=9)  # as many as come back from a batch without the record that killed it
    assert suspects.number_to_start(waiting, 10, None, None) == 1
    suspects.survived(came_back=2, records=3)
    assert suspects.number_to_start(waiting, 10, None, None) == 10
    suspects.survived(came_back=1, records=10)
    assert suspects.number_to_start(waiting, 10, None, None) == 1


def test_records_that_survived_long_ago_do_not_indicate_an_outage(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("dspy_lambda.sources.sqs.suspects.time.monotonic", lambda: now[0])
    suspects, waiting = Suspects(None), groups(*(record(f"m{n}", 2) for n in range(10)))
    suspects.survived(came_back=9, records=9)
    now[0] += 100
    suspects.survived(came_back=9, records=9)
    assert suspects.number_to_start(waiting, 10, None, None) == 1


def test_known_suspects_run_alone_however_many_records_have_survived():
    suspects = Suspects(None)
    suspects.survived(came_back=10, records=10)
    suspects.suspect(["a", "b"], alone=False)
    waiting = groups(record("a", 2), record("b", 2))
    assert suspects.number_to_start(waiting, 10, None, None) == 1
    assert suspects.number_to_start(waiting, 10, usual=10.0, left=1.0) == 1
    assert suspects.number_to_start([*groups(record("c", 2)), *waiting], 10, usual=10.0, left=1.0) == 1


def test_more_records_run_at_once_if_one_at_a_time_would_not_fit_in_the_time_left():
    waiting = groups(*(record(f"m{n}", 2) for n in range(100)))
    assert Suspects(None).number_to_start(waiting, 10, usual=1.0, left=20.0) == 10


def test_records_running_when_a_process_died_become_suspects(tmp_path):
    journal = Journal(tmp_path)
    mark = journal.begin([record(name).raw for name in "abc"])
    mark(0, "running"), mark(2, "running")
    journal._map.flush()
    del journal, mark
    suspects = Suspects(Journal(tmp_path))
    assert suspects.died_with == ["a", "c"]
    _, behind = suspects.split(groups(record("a"), record("b"), record("c")))
    assert sorted(names(behind)) == ["a", "c"]


def test_a_process_that_dies_before_its_first_batch_hands_its_suspects_on(tmp_path):
    journal = Journal(tmp_path)
    mark = journal.begin([record("a").raw])
    mark(0, "running")
    del journal, mark
    for _ in range(2):
        suspects = Suspects(Journal(tmp_path))
        _, behind = suspects.split(groups(record("a"), record("b")))
        assert names(behind) == ["a"]
        del suspects


def test_a_process_that_is_replaced_after_a_batch_hands_its_suspects_on(tmp_path):
    suspects = Suspects(Journal(tmp_path))
    suspects.begin([record("a")])
    suspects.suspect(["a"], alone=True)
    suspects.end()
    del suspects
    _, behind = Suspects(Journal(tmp_path)).split(groups(record("a"), record("b")))
    assert names(behind) == ["a"]


def test_a_record_is_fatal_once_three_processes_died_while_it_ran_alone_and_it_had_its_five_runs(tmp_path):
    fatal = []
    for _ in range(4):
        suspects = Suspects(Journal(tmp_path))
        fatal.append([suspects.is_fatal(record("a", received)) for received in (2, 5, 6)])
        suspects.begin([record("a")])(0, "running")
        del suspects
    assert fatal == [[False] * 3] * 3 + [[False, False, True]]


def test_a_record_that_ran_with_others_or_is_unknown_is_not_fatal():
    suspects = Suspects(None)
    suspects.suspect(["a", "b"], alone=False)
    assert not any(suspects.is_fatal(record(name, 19)) for name in "abc")


@given(
    st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(1, 4)), max_size=20),
    st.sets(st.sampled_from("abcdefgh")),
)
def test_the_split_neither_loses_nor_duplicates_records(records, known):
    suspects = Suspects(None)
    suspects.suspect(known, alone=False)
    made = groups(*(record(name, received, n) for n, (name, received) in enumerate(records)))
    first, behind = suspects.split(made)
    assert sorted(r.position for g in first + behind for r in g) == list(range(len(records)))


@pytest.mark.parametrize("count", ["", "x", "9" * 50, None, {}])
def test_any_receive_count_can_be_read(count):
    assert Record(0, "a", None, raw={"attributes": {"ApproximateReceiveCount": count}}).receive_count == 1
