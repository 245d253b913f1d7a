import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspy_lambda.errors import InvalidInput
from dspy_lambda.sources.sqs.dead_letter import MAX_BYTES, dead_letter, requests, size
from dspy_lambda.sources.sqs.failure import Failure
from dspy_lambda.sources.sqs.record import Record

ARN = "arn:aws:sqs:us-east-1:123456789012:AEchoQueue"


def letter(body="b", attributes=None, reason="why", suffix="", group=None):
    raw = {"body": body, "eventSourceARN": ARN + suffix, "messageAttributes": attributes}
    return dead_letter(3, Failure(Record(0, "m", group, raw=raw), InvalidInput(reason)))


def test_a_fifo_record_keeps_its_group_and_is_deduplicated_by_its_id():
    found = letter(suffix=".fifo", group="g")
    assert (found["MessageGroupId"], found["MessageDeduplicationId"], found["Id"]) == ("g", "m", "3")
    json.dumps(found)


@pytest.mark.parametrize(("count", "added"), [(10, set()), (9, {"Reason"}), (8, {"Reason", "SourceMessageId"})])
def test_a_dead_records_own_attributes_come_before_the_reason(count, added):
    own = {f"a{n}": {"dataType": "String", "stringValue": "v"} for n in range(count)}
    assert set(letter(attributes=own)["MessageAttributes"]) == own.keys() | added


@pytest.mark.parametrize(("room", "names"), [(0, set()), (20, {"Reason"}), (200, {"Reason", "SourceMessageId"})])
def test_a_body_without_room_for_the_reason_is_sent_without_it(room, names):
    found = letter("é" * ((MAX_BYTES - room) // 2))
    assert set(found["MessageAttributes"]) == names
    assert size(found) <= MAX_BYTES


@pytest.mark.parametrize(
    ("reason", "text"), [("", "unknown"), ("a\0b\ud800c\ufffe", "a?b?c?"), ("x" * 2000, "x" * 1000)]
)
def test_a_reason_has_only_characters_that_sqs_accepts(reason, text):
    assert letter(reason=reason)["MessageAttributes"]["Reason"]["StringValue"] == text


@pytest.mark.parametrize(
    "attributes",
    [None, [], "x", {"a": None}, {"a": {"dataType": "Binary", "binaryValue": "é"}}, {"a": {"dataType": 5}}],
)
def test_malformed_attributes_are_left_out(attributes):
    assert set(letter(attributes=attributes)["MessageAttributes"]) == {"Reason", "SourceMessageId"}


def test_the_reason_gets_another_name_if_the_record_already_has_one():
    own = {name: {"dataType": "String", "stringValue": "own"} for name in ("Reason", "SourceMessageId")}
    former = {"DspyLambdaReason": {"dataType": "String", "stringValue": "former"}}
    found = letter(attributes=own | former)["MessageAttributes"]
    assert {name: value["StringValue"] for name, value in found.items()} == {
        "Reason": "own",
        "SourceMessageId": "own",
        "DspyLambdaReason": "why",
    }


@given(st.lists(st.sampled_from([1, 100_000, 500_000, MAX_BYTES]), max_size=40))
def test_requests_hold_ten_entries_and_a_mebibyte(sizes):
    entries = [{"Id": str(n), "MessageBody": "x" * count, "MessageAttributes": {}} for n, count in enumerate(sizes)]
    made = list(requests(entries))
    assert [entry for request in made for entry in request] == entries
    assert all(1 <= len(request) <= 10 and sum(map(size, request)) <= MAX_BYTES for request in made)
