"""Failed records, with real queues on moto's server."""

import base64
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspy_lambda.errors import InvalidInput, ModelUnavailable, ProgramFailed, RateLimited
from dspy_lambda.process import JOURNAL_FOLDER
from dspy_lambda.settings import DEAD_LETTER_QUEUE, TEXTS, Settings
from dspy_lambda.sources.sqs import Queues
from dspy_lambda.sources.sqs.failure import Failure
from dspy_lambda.sources.sqs.journal import Journal
from dspy_lambda.sources.sqs.record import Record
from dspy_lambda.sources.sqs.requeue import Requeue, pause_seconds, pauses
from dspy_lambda_infra.config import Sqs
from dspy_lambda_infra.local.queues import Queue, QueueServer
from tests.support import AECHO, Context, failures, sqs

ARN = "arn:aws:sqs:us-east-1:123456789012:AEchoQueue"
VISIBILITY_SECONDS = 300


@pytest.fixture(scope="module")
def server():
    server = QueueServer()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def queue(server):
    queue = Queue(server.client, "AEcho", Sqs(), VISIBILITY_SECONDS)
    yield queue
    for url in (queue.url, queue.dead_letter_url):
        server.client.delete_queue(QueueUrl=url)


@pytest.fixture
def make_worker(make_project, make_serve, server, queue):
    """Create a function that is invoked with the records in its queue."""

    def make(variables=None, modules=None, **sqs):
        project = make_project(modules or {"aecho": AECHO}, **{"lambda": {"defaults": {"sqs": sqs}}})
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


def receive(server, queue, *bodies, sent=0):
    """Send bodies to the queue, and receive them, with those sent before, as an event."""
    for body in bodies:
        server.client.send_message(QueueUrl=queue.url, MessageBody=body)
    messages = []
    while len(messages) < len(bodies) + sent:
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


def receive_dead(server, queue, number):
    """Wait for this many dead letters, and return them and any more."""
    dead = []
    for _ in range(50):
        found = server.client.receive_message(
            QueueUrl=queue.dead_letter_url, MaxNumberOfMessages=10, MessageAttributeNames=["All"]
        )
        dead += found.get("Messages", [])
        if len(dead) >= number:
            break
    return dead


def failure(error, received=1, *, position=0, group=None, **why):
    raw = {"attributes": {"ApproximateReceiveCount": str(received)}}
    return Failure(Record(position, "m", group, raw=raw), error, **why)


def visible_after(server, queue, seconds=6.0):
    """Seconds until a message can be received again, or None."""
    begin = time.monotonic()
    while time.monotonic() - begin < seconds:
        if server.client.receive_message(QueueUrl=queue.url).get("Messages"):
            return time.monotonic() - begin
        time.sleep(0.1)
    return None


def test_a_rate_limited_record_comes_back_after_the_providers_retry_after(server, queue, make_worker, models):
    worker = make_worker()
    event = receive(server, queue, '{"question": "q"}')
    models.behave(rate_limit_rate=1, retry_after_seconds=2)
    begin = time.monotonic()
    assert len(failures(worker(event, Context(remaining_ms=2000)))) == 1
    assert visible_after(server, queue, VISIBILITY_SECONDS - 100) is not None
    assert time.monotonic() - begin > 1


def test_any_other_record_comes_back_after_a_backoff(server, queue, make_worker, models):
    worker = make_worker(backoff_seconds=2)
    event = receive(server, queue, *['{"question": "q"}'] * 12)
    models.behave(unauthorized_rate=1)
    begin = time.monotonic()
    assert len(failures(worker(event))) == 12
    assert visible_after(server, queue, VISIBILITY_SECONDS - 100) is not None
    assert time.monotonic() - begin > 0.5


def test_without_a_backoff_the_visibility_timeout_applies(server, queue, make_worker, models):
    worker = make_worker(backoff_seconds=0)
    event = receive(server, queue, '{"question": "q"}')
    models.behave(unauthorized_rate=1)
    assert len(failures(worker(event))) == 1
    assert visible_after(server, queue, 2) is None


@pytest.mark.parametrize(("texts", "shown"), [("none", False), ("answer", True)])
def test_moving_a_record_to_the_dead_letter_queue_is_logged_for_developers(
    server, queue, make_worker, records, texts, shown
):
    worker = make_worker({TEXTS: texts}, invalid_to_dead_letter_queue=True)
    event = receive(server, queue, "no json", '{"question": "good"}')
    assert failures(worker(event)) == []
    bad = next(record["messageId"] for record in event["Records"] if record["body"] == "no json")
    told = [line for line in records().lines if line.get("message") == "moved to the dead-letter queue"]
    assert [(line["program"], line["message_id"], line["receives"]) for line in told] == [("AEcho", bad, 1)] * shown


def test_an_invalid_record_is_moved_with_its_reason_and_not_reported(server, queue, make_worker, records):
    worker = make_worker(invalid_to_dead_letter_queue=True)
    event = receive(server, queue, "no json", '{"question": 5}', '{"question": "good"}')
    assert failures(worker(event)) == []
    dead = []
    while len(dead) < 2:
        found = server.client.receive_message(QueueUrl=queue.dead_letter_url, MessageAttributeNames=["All"])
        dead += found.get("Messages", [])
    reasons = {message["Body"]: message["MessageAttributes"]["Reason"]["StringValue"] for message in dead}
    assert reasons['{"question": 5}'] == "The inputs do not fit the program: question: Input should be a valid string."
    assert reasons["no json"].startswith("The body is not JSON")
    ids = {message["MessageAttributes"]["SourceMessageId"]["StringValue"] for message in dead}
    assert ids < {record["messageId"] for record in event["Records"]}
    assert sum(records().values("RecordsFailed")) == 2


def test_records_with_the_same_id_are_not_confused(server, queue, make_worker, models):
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
    assert len(failures(worker(event, Context(remaining_ms=60_000)))) == 1
    assert time.monotonic() - begin < 55
    warnings = {line["message"] for line in records().lines if line.get("level") == "WARN"}
    assert warnings in ({"SQS request failed"}, {"no dead-letter queue is configured"})


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_ENDPOINT_URL_SQS"])
def test_credentials_are_keys_or_with_snap_start_an_address_or_the_developers_own(name):
    assert Requeue(Settings(variables={name: "there"}), lambda *_: None).has_credentials
    assert not Requeue(Settings(variables={name: ""}), lambda *_: None).has_credentials


def test_without_credentials_or_time_no_request_is_sent_to_sqs(server, queue, make_worker, models, records):
    event = receive(server, queue, '{"question": "q"}')
    models.behave(unauthorized_rate=1)
    nothing = {"AWS_ACCESS_KEY_ID": "", "AWS_ENDPOINT_URL_SQS": ""}
    assert len(failures(make_worker(nothing, backoff_seconds=1)(event))) == 1
    assert len(failures(make_worker(backoff_seconds=1)(event, Context(remaining_ms=50)))) == 1
    assert visible_after(server, queue, 2) is None
    assert not [line for line in records().lines if line.get("level") == "WARN"]


@pytest.mark.parametrize("reason", [ImportError("No module named 'boto3'"), ValueError("You must specify a region.")])
def test_without_a_client_failed_records_are_reported_and_done_records_stay_done(
    make_worker, records, monkeypatch, reason
):
    def client(*_, **__):
        raise reason

    monkeypatch.setattr("boto3.client", client)
    worker = make_worker(invalid_to_dead_letter_queue=True)
    event = sqs({"question": "q"}, "not JSON", {"question": 5})
    for record in event["Records"]:
        record |= {"receiptHandle": "r", "eventSourceARN": ARN}
    records()
    assert failures(worker(event)) == ["m1", "m2"]
    warnings = [line for line in records().lines if line.get("level") in ("WARN", "ERROR")]
    assert {(line["message"], line["exception_name"]) for line in warnings} == {
        ("SQS request failed", type(reason).__name__)
    }


@pytest.mark.parametrize("value", [None, 5, [], ["a:b:c:d:e:f"], {"a:b:c:d:e": ":"}, "a:b", "9" * 5000, [[]]], ids=repr)
@pytest.mark.parametrize("key", ["attributes", "eventSourceARN", "receiptHandle", "MessageGroupId", "messageId"])
@pytest.mark.parametrize("body", ["not JSON", '{"question": "q"}'])
def test_a_malformed_record_does_not_affect_others(make_worker, models, records, key, value, body):
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
    assert not [line for line in records().lines if line.get("message") == "unexpected error"]


@given(st.integers(1, 10_000), st.integers(1, 1000), st.integers(1, 5000))
def test_the_backoff_doubles_within_its_bounds(received, base, longest):
    settings = Sqs(backoff_seconds=base, backoff_max_seconds=longest)
    seconds = pause_seconds(failure(ModelUnavailable(""), received), settings)
    highest = min(base * 2 ** min(received - 1, 20), longest)
    assert highest / 2 <= seconds <= highest


@pytest.mark.parametrize(
    ("retry_after", "received", "least", "most"),
    [
        (None, 1, 5, 10),
        (0, 1, 5, 10),
        (1, 1, 5, 10),
        (60, 1, 60, 90),
        (60, 8, 450, 900),
        (100_000, 1, 42_300, 42_300),  # SQS counts the 43,200 s from the receipt
        (31 * 86_400, 1, 42_300, 42_300),
    ],
)
def test_the_pause_is_the_longer_of_retry_after_and_backoff(retry_after, received, least, most):
    failed = failure(RateLimited("", retry_after=retry_after), received)
    assert all(least <= pause_seconds(failed, Sqs()) <= most for _ in range(100))


def test_records_that_failed_together_come_back_at_different_times():
    failed = failure(RateLimited("", retry_after=600))
    assert len({pause_seconds(failed, Sqs()) for _ in range(100)}) > 20


def test_a_message_group_waits_for_its_first_failure_and_not_at_all_once_that_was_moved():
    error = RateLimited("", retry_after=5)
    failed = [failure(error, position=n, group=group) for n, group in enumerate(["a", "b", "a", None, "a", "b"])]
    seconds = [seconds for _, seconds in pauses(failed, {"b"}, Sqs())]
    assert seconds[0] == seconds[2] == seconds[4] >= 5
    assert seconds[1] == seconds[5] == 0
    assert seconds[3] >= 5


@pytest.mark.parametrize(
    ("error", "received", "is_final"),
    [
        (ProgramFailed(""), 4, False),
        (ProgramFailed(""), 5, True),
        (ProgramFailed(""), 6, False),  # its fifth receive was in an outage; otherwise it would be gone
        (ProgramFailed(""), 9, False),
        (ProgramFailed(""), 10, True),
        (InvalidInput(""), 4, False),
        (InvalidInput(""), 5, True),
    ],
)
def test_a_record_that_fails_without_an_outage_is_moved_at_each_fifth_receive(error, received, is_final):
    assert failure(error, received, is_own=True).is_final(Sqs()) is is_final
    assert failure(error, received, is_fatal=True).is_final(Sqs())
    assert not failure(error, received).is_final(Sqs())


@pytest.mark.parametrize(
    ("behavior", "body", "is_moved"),
    [
        ({"rate_limit_rate": 1, "retry_after_seconds": 30}, '{"question": "q"}', False),
        ({"error_rate": 1}, '{"question": "q"}', False),
        ({"unauthorized_rate": 1}, '{"question": "q"}', False),
        ({"hang_rate": 1}, '{"question": "q"}', False),
        ({"malformed_rate": 1}, '{"question": "q"}', True),
        ({}, '{"question": 5}', True),
        ({}, "not JSON", True),
    ],
    ids=str,
)
def test_records_wait_out_outages_but_are_moved_for_other_failures(
    server, queue, make_worker, models, behavior, body, is_moved
):
    worker = make_worker()
    event = receive(server, queue, body)
    event["Records"][0]["attributes"]["ApproximateReceiveCount"] = "5"
    models.behave(**behavior)
    assert (failures(worker(event, Context(remaining_ms=3000))) == []) is is_moved
    assert bool(receive_dead(server, queue, 1 if is_moved else 0)) is is_moved


HIDES = """
class Hides(dspy.Module):
    def __init__(self):
        super().__init__()
        self.predict = dspy.Predict("question -> answer")

    async def aforward(self, question: str) -> dspy.Prediction:
        try:
            return await self.predict.acall(question=question)
        except Exception:
            raise ValueError("no answer")
"""


@pytest.mark.parametrize("fault", ["rate_limit_rate", "malformed_rate"])
def test_an_outage_hidden_by_a_programs_own_exception_counts_as_an_outage(server, queue, make_worker, models, fault):
    worker = make_worker(modules={"hides": HIDES})
    event = receive(server, queue, '{"question": "q"}')
    event["Records"][0]["attributes"]["ApproximateReceiveCount"] = "10"
    models.behave(**{fault: 1}, retry_after_seconds=30)
    assert len(failures(worker(event))) == (1 if fault == "rate_limit_rate" else 0)


RECOVERS = """
class Recovers(dspy.Module):
    async def aforward(self, retried: bool) -> str:
        lm = dspy.settings.lm if retried else dspy.settings.lm.copy(num_retries=0)
        for _ in range(2):
            try:
                await lm.acall("q")
            except dspy.utils.exceptions.LMError:
                pass
        raise KeyError("a fault of its own")
"""


@pytest.mark.parametrize("retried", ["true", "false"])
def test_an_error_that_a_retry_recovered_from_is_not_an_outage(server, queue, make_worker, models, retried):
    """The success of another LM call is not enough: the program may lack the first one's answer."""
    worker = make_worker(modules={"recovers": RECOVERS})
    event = receive(server, queue, f'{{"retried": {retried}}}')
    event["Records"][0]["attributes"]["ApproximateReceiveCount"] = "10"
    models.behave(error_rate=0.2, seed=1)  # only the first request fails
    assert len(failures(worker(event))) == (0 if retried == "true" else 1)


def test_records_after_a_moved_record_of_their_group_come_back_without_having_run(make_project, server, make_worker):
    settings = Sqs(fifo=True)
    fifo = Queue(server.client, "AEcho", settings, 300)
    worker = make_worker({DEAD_LETTER_QUEUE: fifo.dead_letter_url}, fifo=True)
    for body in ("not JSON", '{"question": 5}'):
        server.client.send_message(QueueUrl=fifo.url, MessageBody=body, MessageGroupId="g")
    event = receive(server, fifo, sent=2)
    for record in event["Records"]:
        record["eventSourceARN"] = f"{ARN}.fifo"
        record["attributes"]["ApproximateReceiveCount"] = "10"
    assert failures(worker(event)) == [event["Records"][1]["messageId"]]
    (dead,) = receive_dead(server, fifo, 1)
    assert dead["Body"] == "not JSON"
    server.client.delete_message(QueueUrl=fifo.url, ReceiptHandle=event["Records"][0]["receiptHandle"])
    assert visible_after(server, fifo) < 5


def waiting(server, queue):
    """The number of records still in the queue, including those in flight."""
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    found = server.client.get_queue_attributes(QueueUrl=queue.url, AttributeNames=names)["Attributes"]
    return sum(map(int, found.values()))


@pytest.fixture
def died(tmp_path):
    """Let a process die with a batch, some of whose records were done; return the folder for the next process."""

    def die(event, done):
        mark = Journal(tmp_path / JOURNAL_FOLDER).begin(event["Records"])
        for position in range(len(event["Records"])):
            mark(position, "done" if position in done else "running")
        return {"AWS_LAMBDA_FUNCTION_NAME": "f", "TMPDIR": str(tmp_path)}

    return die


def test_records_done_when_their_batch_died_are_deleted_during_the_next_batch(
    server, queue, make_worker, died, models, records
):
    died_with = receive(server, queue, *(f'{{"question": "q{n}"}}' for n in range(12)))
    worker = make_worker(died(died_with, done=range(11)))
    assert failures(worker(receive(server, queue, '{"question": "next"}'))) == []
    assert (waiting(server, queue), models.stats()["requests"]) == (2, 1)
    (died_line,) = (line for line in records().lines if line.get("message", "").startswith("the previous process died"))
    assert (died_line["message_ids"], died_line["done"]) == ([died_with["Records"][11]["messageId"]], 11)


def test_records_done_when_their_batch_died_are_not_run_again(server, queue, make_worker, died, models, records):
    came_back = receive(server, queue, '{"question": "a"}', '{"question": "b"}')
    worker = make_worker(died(came_back, done=[0]))
    assert failures(worker(came_back)) == []
    (call,) = records().calls
    assert call["message_id"] == came_back["Records"][1]["messageId"]
    assert models.stats()["requests"] == 1


def test_records_that_cannot_be_deleted_in_time_are_noted_for_the_next_process(
    queue, server, make_worker, died, models
):
    died_with = receive(server, queue, '{"question": "a"}')
    worker = make_worker(died(died_with, done=[0]))
    queues = worker.environment.part(Queues)
    release = threading.Event()
    queues.requeue.delete = lambda *_: release.wait(100)
    assert failures(worker(receive(server, queue, '{"question": "next"}'), Context(2000))) == []
    release.set()
    assert queues.suspects.done
    del queues.requeue.delete
    assert failures(worker(receive(server, queue, '{"question": "last"}'))) == []
    assert (waiting(server, queue), queues.suspects.done) == (2, [])


def test_records_stay_noted_if_the_delete_request_fails(server, queue, make_worker, died, models):
    worker = make_worker(died(receive(server, queue, '{"question": "a"}'), done=[0]))
    queues = worker.environment.part(Queues)
    queues.requeue._variables["AWS_ENDPOINT_URL_SQS"] = "http://127.0.0.1:9"
    begin = time.monotonic()
    assert failures(worker(receive(server, queue, '{"question": "next"}'))) == []
    assert queues.suspects.done
    assert time.monotonic() - begin < 25


def test_a_moved_record_keeps_its_own_message_attributes(server, queue, make_worker):
    worker = make_worker(invalid_to_dead_letter_queue=True)
    event = receive(server, queue, "not JSON")
    event["Records"][0]["messageAttributes"] = {
        "tenant": {"stringValue": "t1", "dataType": "String", "stringListValues": [], "binaryListValues": []},
        "n": {"stringValue": "5", "dataType": "Number.int"},
        "raw": {"binaryValue": base64.b64encode(b"\0\1").decode(), "dataType": "Binary"},
    }
    assert failures(worker(event)) == []
    (dead,) = receive_dead(server, queue, 1)
    found = dead["MessageAttributes"]
    assert set(found) == {"Reason", "SourceMessageId", "tenant", "n", "raw"}
    assert found["tenant"]["StringValue"] == "t1"
    assert (found["n"]["StringValue"], found["n"]["DataType"]) == ("5", "Number.int")
    assert found["raw"]["BinaryValue"] == b"\0\1"


def test_a_reason_without_room_is_logged(server, queue, make_worker, records):
    worker = make_worker(invalid_to_dead_letter_queue=True)
    event = receive(server, queue, "not JSON")
    own = {f"a{n}": {"stringValue": "v", "dataType": "String"} for n in range(10)}
    event["Records"][0]["messageAttributes"] = own
    assert failures(worker(event)) == []
    (dead,) = receive_dead(server, queue, 1)
    assert set(dead["MessageAttributes"]) == set(own)
    (line,) = [line for line in records().lines if "no room for its failure reason" in str(line.get("message"))]
    assert line["message_id"] == event["Records"][0]["messageId"]


def test_invalid_records_of_a_megabyte_are_moved(server, queue, make_worker):
    worker = make_worker(invalid_to_dead_letter_queue=True)
    event = receive(server, queue, *(f"{n}".ljust(1_048_576, "x") for n in range(3)))
    assert failures(worker(event)) == []
    assert {dead["Body"][0] for dead in receive_dead(server, queue, 3)} == {"0", "1", "2"}


def test_records_moved_before_the_deadline_are_not_reported_and_nothing_is_sent_after_the_answer(make_worker):
    """Ten requests of 0.3 s each, and no time for all of them."""
    sent = []

    class Slow:
        def send_message_batch(self, QueueUrl, Entries):
            time.sleep(0.3)
            sent.append(len(Entries))
            return {"Successful": [{"Id": entry["Id"]} for entry in Entries]}

    worker = make_worker(invalid_to_dead_letter_queue=True, batch_size=100, window_seconds=1)
    worker.environment.part(Queues).requeue._client = Slow()
    event = sqs(*["not JSON"] * 100)
    for record in event["Records"]:
        record |= {"receiptHandle": "r", "eventSourceARN": ARN}
    reported = failures(worker(event, Context(remaining_ms=2500)))
    # The result of a request in progress at the last moment is unknown.
    assert 0 < len(reported) < 100
    time.sleep(0.5)
    assert 0 <= sum(sent) - (100 - len(reported)) <= 10
