import json
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dspy_lambda.sources.sqs.suspects import Suspects
from tests.conftest import QUICKSTART
from tests.support import AECHO, ECHO, Context, failures, module_of, sqs

# Fails on demand, and records the order in which its calls started.
PICKY = """
ORDER = []
class Picky(dspy.Module):
    async def aforward(self, name: str, fail: bool = False) -> str:
        ORDER.append(name)
        if fail: raise ValueError(name)
        return name
"""


@pytest.mark.parametrize(("name", "failed"), [("sqs-one", []), ("sqs-ten", []), ("sqs-one-bad", ["000000000004"])])
def test_the_sample_batches_are_answered(make_serve, event, name, failed):
    serve = make_serve(QUICKSTART, DSPY_LAMBDA_PROGRAM="Answer")
    assert [identifier[-12:] for identifier in failures(serve(event(name)))] == failed


def test_what_a_queue_keeps_is_made_once_where_the_deadline_comes_while_it_is_made(make_serve, event, monkeypatch):
    made, answered = [], threading.Event()

    def slow(settings):
        made.append(threading.current_thread())
        if made[-1] is not threading.main_thread():
            answered.wait()  # the deadline comes
        return Suspects(None)

    monkeypatch.setattr("dspy_lambda.sources.sqs.open_suspects", slow)
    serve = make_serve(QUICKSTART, DSPY_LAMBDA_PROGRAM="Answer")
    try:
        serve(event("sqs-one"), Context(500))
    finally:
        answered.set()
    assert len(made) == 1


@pytest.mark.parametrize(
    "body",
    [
        "",
        "not json",
        "[]",
        '"text"',
        "null",
        "[" * 10_000,
        "1" * 5000,
        r'{"question": "\ud800"}',
        {"question": 5},
        {},
        {"program": "Nope", "inputs": {"question": "q"}},
        {"program": "Echo", "inputs": {}},
        {"program": 5, "inputs": {"question": "q"}},
        {"program": "Echo", "inputs": []},
    ],
)
def test_a_record_that_cannot_be_a_call_is_reported_as_invalid_input(make_project, make_serve, records, body):
    serve = make_serve(make_project({"echo": ECHO}))
    assert failures(serve(sqs({"question": "good"}, body, {"question": "good"}))) == ["m1"]
    logged = records()
    assert {call["message_id"]: call["outcome"] for call in logged.calls} == {
        "m0": "success",
        "m1": "invalid_input",
        "m2": "success",
    }
    assert sum(logged.values("RecordsFailed")) == 1


def test_a_body_may_name_its_program_or_be_the_bare_inputs(make_project, make_serve, records):
    one = make_serve(make_project({"echo": ECHO}))
    assert failures(one(sqs({"question": "q"}, {"program": "Echo", "inputs": {"question": "q"}}))) == []
    several = make_serve(make_project({"echo": ECHO, "aecho": AECHO}))
    batch = sqs({"question": "q"}, {"program": "AEcho", "inputs": {"question": "q"}})
    records()
    assert failures(several(batch)) == ["m0"]
    assert [call["program"] for call in records().calls] == ["unknown", "AEcho"]


def test_inputs_called_program_and_inputs_are_bare_inputs_where_types_differ(make_project, make_serve):
    source = "class Odd(dspy.Module):\n    async def aforward(self, program: int, inputs: int) -> int: return program\n"
    serve = make_serve(make_project({"odd": source}))
    assert failures(serve(sqs({"program": 1, "inputs": 2}))) == []


def test_records_run_concurrently_within_the_programs_slots(make_project, make_serve, models):
    models.behave(delay_seconds=0.05)
    for name, source in (("Echo", ECHO), ("AEcho", AECHO)):
        serve = make_serve(make_project({"echo": source}, server={"max_concurrent_per_program": 7}))
        models.behave(delay_seconds=0.05)
        batch = sqs(*({"program": name, "inputs": {"question": f"q{n}"}} for n in range(30)))
        assert failures(serve(batch)) == []
        assert models.stats()["peak_in_flight"] == 7


@pytest.mark.parametrize("source", [ECHO, AECHO])
def test_records_cut_off_by_the_deadline_are_reported_and_done_records_count(
    make_project, make_serve, models, records, source
):
    serve = make_serve(make_project({"echo": source}, server={"max_concurrent_per_program": 5}))
    models.behave(delay_seconds=1.1)
    # Two seconds: the second five have started and cannot finish.
    answer = serve(sqs(*({"question": f"q{n}"} for n in range(15))), Context(remaining_ms=2500))
    outcomes = {call["message_id"]: call["outcome"] for call in records().calls}
    done = [identifier for identifier, outcome in outcomes.items() if outcome == "success"]
    assert len(outcomes) == 15
    assert len(done) == 5
    assert set(failures(answer)) == {f"m{n}" for n in range(15)} - set(done)
    assert set(outcomes.values()) == {"success", "deadline"}
    models.behave()
    assert failures(serve(sqs({"question": "after"}))) == []


def test_a_fifo_group_stops_at_its_first_failure(make_project, make_serve):
    serve = make_serve(make_project({"picky": PICKY}))
    batch = sqs({"name": "a"}, {"name": "b", "fail": True}, {"name": "c"}, {"name": "x"}, fifo="one")
    batch["Records"][3]["attributes"]["MessageGroupId"] = "two"
    assert failures(serve(batch)) == ["m1", "m2"]
    (program,) = serve.environment.programs.values()
    import sys

    assert sorted(sys.modules[program.module].ORDER) == ["a", "b", "x"]


def test_groups_of_a_standard_queue_run_concurrently(make_project, make_serve):
    serve = make_serve(make_project({"picky": PICKY}))
    batch = sqs({"name": "a", "fail": True}, {"name": "b"}, fifo="one")
    for record in batch["Records"]:
        record["eventSourceARN"] = record["eventSourceARN"].removesuffix(".fifo")
    assert failures(serve(batch)) == ["m0"]


def test_a_failing_record_without_an_id_returns_the_whole_batch(make_project, make_serve):
    serve = make_serve(make_project({"echo": ECHO}))
    batch = sqs({"question": "q"}, "bad")
    del batch["Records"][1]["messageId"]
    assert failures(serve(batch)) == [""]
    batch["Records"].append("no record")
    assert failures(serve(batch)) == ["", ""]


@pytest.fixture
def picky(make_project, make_serve):
    return make_serve(make_project({"picky": PICKY}))


RECORDS = st.lists(
    st.fixed_dictionaries(
        {"messageId": st.uuids().map(str), "eventSource": st.just("aws:sqs")},
        optional={
            "body": st.one_of(
                st.none(),
                st.integers(),
                st.text(max_size=20),
                st.fixed_dictionaries({"name": st.text(max_size=5)}, optional={"fail": st.booleans()}).map(json.dumps),
            ),
            "attributes": st.one_of(st.none(), st.text(max_size=3), st.dictionaries(st.text(max_size=3), st.none())),
            "eventSourceARN": st.one_of(st.none(), st.just("arn:aws:sqs:us-east-1:1:q.fifo")),
        },
    ),
    min_size=1,
    max_size=8,
    unique_by=lambda record: record["messageId"],
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)
@given(batch=RECORDS)
def test_every_record_is_either_done_or_reported(picky, records, batch):
    records()
    failed = failures(picky({"Records": batch}))
    outcomes = {call["message_id"]: call["outcome"] for call in records().calls}
    assert set(outcomes) == {record["messageId"] for record in batch}
    assert sorted(failed) == sorted(identifier for identifier, outcome in outcomes.items() if outcome != "success")


LATE = """
import threading
RELEASE = threading.Event()
class Late(dspy.Module):
    async def aforward(self, name: str):
        if name == "blocks": RELEASE.wait(100)
        return name
"""


def test_at_the_deadline_records_after_a_failed_one_are_reported_without_a_call(make_project, make_serve, records):
    serve = make_serve(make_project({"late": LATE}))
    event = sqs(*({"name": name} for name in ("fine", "blocks", "behind", "other", "behind", "behind")), fifo="g")
    event["Records"][3]["attributes"] = {"MessageGroupId": "h"}
    records()
    assert failures(serve(event, Context(remaining_ms=1000)))[:2] == ["m1", "m2"]
    module_of(serve, "Late").RELEASE.set()
    logged = records()
    outcomes = {call["message_id"]: call["outcome"] for call in logged.calls}
    assert (outcomes["m0"], outcomes["m1"]) == ("success", "deadline")
    assert {"m2", "m4", "m5"}.isdisjoint(outcomes)
    assert sum(logged.values("Calls")) == len(outcomes) == 3
    assert sum(logged.values("RecordsFailed")) >= 4


def test_a_message_group_that_was_not_started_is_one_call(make_project, make_serve, records):
    """Without time to delete done records, no record that may end the process is started."""
    variables = {"AWS_ACCESS_KEY_ID": "k", "AWS_ENDPOINT_URL_SQS": "http://127.0.0.1:9", "AWS_REGION": "us-east-1"}
    serve = make_serve(make_project({"late": LATE}), **variables)
    event = sqs(*({"name": name} for name in ("new", "first", "behind", "behind")), fifo="g")
    for record in event["Records"]:
        record |= {"receiptHandle": "r", "eventSourceARN": "arn:aws:sqs:us-east-1:123456789012:Queue.fifo"}
        record["attributes"]["ApproximateReceiveCount"] = "2"
    event["Records"][0]["attributes"] = {"MessageGroupId": "h", "ApproximateReceiveCount": "1"}
    records()
    assert failures(serve(event, Context(remaining_ms=0)))[-3:] == ["m1", "m2", "m3"]
    assert [call["message_id"] for call in records().calls if call["message_id"] != "m0"] == ["m1"]
