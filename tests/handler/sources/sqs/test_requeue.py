"""Failed records, against real queues of moto's server."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspy_lambda.config import Sqs
from dspy_lambda.errors import ModelUnavailable, ProgramFailed, RateLimited
from dspy_lambda.sources.sqs.requeue import DEAD_LETTER_QUEUE, Failure, Requeue, pause_seconds
from dspy_lambda_infra.local.queues import Queue, QueueServer
from tests.support import AECHO, Context, failures, sqs

ARN = "arn:aws:sqs:us-east-1:123456789012:AEchoQueue"


@pytest.fixture(scope="module")
def server():
    server = QueueServer()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def queue(server):
    queue = Queue(server.client, "AEcho", Sqs(), 300)
    yield queue
    for url in (queue.url, queue.dead_letter_url):
        server.client.delete_queue(QueueUrl=url)


@pytest.fixture
def make_worker(make_project, make_serve, server, queue):
    """The quickest way to a function that is invoked with what its queue holds."""

    def make(variables=None, **sqs):
        project = make_project({"aecho": AECHO}, **{"lambda": {"defaults": {"sqs": sqs}}})
        return make_serve(
            project,
            **{
                "AWS_ACCESS_KEY_ID": "local",
                "AWS_SECRET_ACCESS_KEY": "local",
                "AWS_REGION": "us-east-1",
                "AWS_ENDPOINT_URL_SQS": server.address,
                DEAD_LETTER_QUEUE: queue.dead_letter_url,
                **(variables or {}),
            },
        )

    return make


def receive(server, queue, *bodies):
    """Put bodies into the queue and take them out again, as an event."""
    for body in bodies:
        server.client.send_message(QueueUrl=queue.url, MessageBody=body)
    messages = []
    while len(messages) < len(bodies):
        found = server.client.receive_message(QueueUrl=queue.url, MaxNumberOfMessages=10, AttributeNames=["All"])
        messages += found.get("Messages", [])
    records = [
        {
            "messageId": message["MessageId"],
            "receiptHandle": message["ReceiptHandle"],
            "body": message["Body"],
            "attributes": message["Attributes"],
            "eventSource": "aws:sqs",
            "eventSourceARN": ARN,
        }
        for message in messages
    ]
    return {"Records": records}


def visible_after(server, queue, seconds=6.0):
    """Seconds until a message can be received again, or None."""
    begin = time.monotonic()
    while time.monotonic() - begin < seconds:
        if server.client.receive_message(QueueUrl=queue.url).get("Messages"):
            return time.monotonic() - begin
        time.sleep(0.1)
    return None


def test_a_rate_limited_record_comes_back_when_the_provider_said(server, queue, make_worker, models):
    worker = make_worker()
    event = receive(server, queue, '{"question": "q"}')
    models.behave(rate_limit_rate=1, retry_after_seconds=2)
    assert len(failures(worker(event, Context(remaining_ms=2000)))) == 1
    assert 1 < visible_after(server, queue, 20) < 20


def test_any_other_record_comes_back_after_a_backoff(server, queue, make_worker, models):
    worker = make_worker(backoff_seconds=2)
    event = receive(server, queue, *['{"question": "q"}'] * 12)
    models.behave(unauthorized_rate=1)
    assert len(failures(worker(event))) == 12
    assert 0.5 < visible_after(server, queue, 20) < 20


def test_without_a_backoff_the_visibility_timeout_holds(server, queue, make_worker, models):
    worker = make_worker(backoff_seconds=0)
    event = receive(server, queue, '{"question": "q"}')
    models.behave(unauthorized_rate=1)
    assert len(failures(worker(event))) == 1
    assert visible_after(server, queue, 2) is None


def test_an_invalid_record_is_moved_with_its_reason_and_no_more_reported(server, queue, make_worker, records):
    worker = make_worker(invalid_to_dead_letter_queue=True)
    event = receive(server, queue, "no json", '{"question": 5}', '{"question": "good"}')
    assert failures(worker(event)) == []
    dead = []
    while len(dead) < 2:
        found = server.client.receive_message(QueueUrl=queue.dead_letter_url, MessageAttributeNames=["All"])
        dead += found.get("Messages", [])
    reasons = {message["Body"]: message["MessageAttributes"]["Reason"]["StringValue"] for message in dead}
    assert reasons['{"question": 5}'] == "The inputs do not fit the program: question."
    assert reasons["no json"].startswith("The body is not JSON")
    ids = {message["MessageAttributes"]["SourceMessageId"]["StringValue"] for message in dead}
    assert ids < {record["messageId"] for record in event["Records"]}
    assert sum(records().values("RecordsFailed")) == 2


def test_a_record_is_not_taken_for_another_of_its_id(server, queue, make_worker, models):
    worker = make_worker(invalid_to_dead_letter_queue=True)
    event = receive(server, queue, "no json", '{"question": "q"}')
    for record in event["Records"]:
        record["messageId"] = "same"
    models.behave(unauthorized_rate=1)
    assert failures(worker(event)) == ["same"]


@pytest.mark.parametrize(
    "variables",
    [
        {DEAD_LETTER_QUEUE: ""},
        {DEAD_LETTER_QUEUE: "http://127.0.0.1:9/123456789012/none"},
        {"AWS_ENDPOINT_URL_SQS": "http://127.0.0.1:9"},
    ],
)
def test_a_record_is_reported_unless_the_dead_letter_queue_has_it(server, queue, make_worker, records, variables):
    worker = make_worker(variables, invalid_to_dead_letter_queue=True)
    event = receive(server, queue, "no json")
    records()
    begin = time.monotonic()
    assert len(failures(worker(event, Context(remaining_ms=10_000)))) == 1
    assert time.monotonic() - begin < 9
    (warning,) = [line for line in records().lines if line.get("level") == "WARNING"]
    assert warning["message"] in ("SQS refused", "there is no dead-letter queue to move invalid records to")


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_CONTAINER_CREDENTIALS_FULL_URI"])
def test_credentials_are_keys_or_with_snap_start_an_address(name):
    assert Requeue({name: "there"}, lambda *_: None).possible
    assert not Requeue({name: ""}, lambda *_: None).possible


def test_without_credentials_or_time_nothing_is_asked_of_sqs(server, queue, make_worker, models, records):
    event = receive(server, queue, '{"question": "q"}')
    models.behave(unauthorized_rate=1)
    assert len(failures(make_worker({"AWS_ACCESS_KEY_ID": ""}, backoff_seconds=1)(event))) == 1
    assert len(failures(make_worker(backoff_seconds=1)(event, Context(remaining_ms=50)))) == 1
    assert visible_after(server, queue, 2) is None
    assert not [line for line in records().lines if line.get("level") == "WARNING"]


@pytest.mark.parametrize("reason", [ImportError("No module named 'boto3'"), ValueError("You must specify a region.")])
def test_without_a_client_records_are_reported_and_what_is_done_stays_done(make_worker, records, monkeypatch, reason):
    def client(*_, **__):
        raise reason

    monkeypatch.setattr("boto3.client", client)
    worker = make_worker(invalid_to_dead_letter_queue=True)
    event = sqs({"question": "q"}, "not JSON", {"question": 5})
    for record in event["Records"]:
        record |= {"receiptHandle": "r", "eventSourceARN": ARN}
    records()
    assert failures(worker(event)) == ["m1", "m2"]
    warnings = [line for line in records().lines if line.get("level") in ("WARNING", "ERROR")]
    assert {(line["message"], line["exception_name"]) for line in warnings} == {("SQS refused", type(reason).__name__)}


@pytest.mark.parametrize("value", [None, 5, [], ["a:b:c:d:e:f"], {"a:b:c:d:e": ":"}, "a:b", "9" * 5000, [[]]], ids=repr)
@pytest.mark.parametrize("key", ["attributes", "eventSourceARN", "receiptHandle", "MessageGroupId", "messageId"])
@pytest.mark.parametrize("body", ["not JSON", '{"question": "q"}'])
def test_a_record_of_another_shape_harms_no_other(make_worker, models, records, key, value, body):
    worker = make_worker({"AWS_ENDPOINT_URL_SQS": "http://127.0.0.1:9"}, invalid_to_dead_letter_queue=True)
    event = sqs({"question": "good"}, body, fifo="g")
    event["Records"][0]["attributes"] = {"MessageGroupId": "another"}
    for record in event["Records"]:
        record |= {"receiptHandle": "r", "eventSourceARN": f"{ARN}.fifo"}
    odd = event["Records"][1]
    (odd["attributes"] if key == "MessageGroupId" else odd)[key] = value
    models.behave(unauthorized_rate=1)
    records()
    assert len(failures(worker(event))) == 2
    assert not [line for line in records().lines if line.get("message") == "unforeseen error"]


@given(st.integers(1, 10_000), st.integers(1, 1000), st.integers(1, 5000))
def test_the_backoff_doubles_within_its_bounds(received, base, longest):
    record = {"attributes": {"ApproximateReceiveCount": str(received)}}
    settings = Sqs(backoff_seconds=base, backoff_max_seconds=longest)
    seconds = pause_seconds(Failure(record, ModelUnavailable("")), settings)
    highest = min(base * 2 ** min(received - 1, 20), longest)
    assert highest / 2 <= seconds <= highest


@pytest.mark.parametrize(("retry_after", "seconds"), [(0, 0), (0.2, 1), (7, 7), (100_000, 43_200)])
def test_the_providers_word_goes_before_the_backoff(retry_after, seconds):
    assert pause_seconds(Failure({}, RateLimited("", retry_after=retry_after)), Sqs()) == seconds
    assert 5 <= pause_seconds(Failure({}, ProgramFailed("")), Sqs()) <= 10


def test_a_fifo_letter_keeps_group_and_identity():
    from dspy_lambda.errors import InvalidInput
    from dspy_lambda.sources.sqs.requeue import _letter

    record = {"body": "b", "messageId": "m", "eventSourceARN": f"{ARN}.fifo", "attributes": {"MessageGroupId": "g"}}
    letter = _letter(3, Failure(record, InvalidInput("why")))
    assert (letter["MessageGroupId"], letter["MessageDeduplicationId"], letter["Id"]) == ("g", "m", "3")
    json.dumps(letter)
