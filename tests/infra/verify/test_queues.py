import json

import pytest

from dspy_lambda_infra.verify.checks import queues
from tests.infra.verify.fake import Client, FakeStack

EMPTY = {"ApproximateNumberOfMessages": "0", "ApproximateNumberOfMessagesNotVisible": "0"}
EVENT = {"program": "Answer", "inputs": {"question": "raise"}}


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(queues, "until", lambda *_: iter([None]))


def sqs(*bodies):
    """Return a queue with these messages."""
    messages = [{"Body": json.dumps(body)} for body in bodies]
    return Client(receive_message=lambda **_: {"Messages": messages} if messages else {})


@pytest.mark.parametrize(
    ("kept", "holds"),
    [
        # https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-retain-records.html
        ([{"requestContext": {"condition": "RetriesExhausted"}, "requestPayload": EVENT}], True),
        ([{"requestPayload": {"program": "Other"}}], False),
        ([], False),
    ],
)
def test_the_on_failure_check_requires_the_original_event(kept, holds):
    invoked = []
    stack = FakeStack.make(sqs=sqs(*kept), **{"lambda": Client(invoke=lambda **given: invoked.append(given))})
    assert queues.an_event_that_fails_for_good_is_kept(stack)[0] is holds
    assert invoked[0]["InvocationType"] == "Event"
    assert json.loads(invoked[0]["Payload"]) == EVENT


def backoff(*times):
    """Run the check on a record whose calls ended at those times."""
    calls = [{"message_id": "m", "at": at} for at in times] + [{"message_id": "other", "at": 5.0}]
    client = Client(
        send_message_batch=lambda **_: {"Successful": [{"Id": "0", "MessageId": "m"}]},
        get_queue_attributes=lambda **_: {"Attributes": {"VisibilityTimeout": "120", **EMPTY}},
    )
    return queues.a_limited_record_comes_back_after_a_backoff(FakeStack.make(calls=calls, sqs=client))[0]


def test_the_backoff_check_requires_the_providers_delay():
    assert backoff(100, 115) is True
    assert backoff(100, 102) is False
    assert backoff(100, 225) is False
    assert backoff(100) is False


@pytest.mark.parametrize(
    ("order", "dead", "holds"),
    [
        ([0, 1, 1, 2, 3], 1, True),
        ([0, 1, 2, 1, 3], 1, False),
        ([0, 1, 1, 2], 1, False),
        ([0, 1, 1, 2, 3], 2, False),
    ],
)
def test_the_fifo_check_requires_the_order_of_the_message_group(order, dead, holds):
    calls = [{"message_id": f"m{n}", "at": at} for at, n in enumerate(order)]
    sent = [{"Id": str(n), "MessageId": f"m{n}"} for n in range(4)]
    counts = {"ApproximateNumberOfMessages": str(dead), "ApproximateNumberOfMessagesNotVisible": "0"}
    client = Client(
        send_message_batch=lambda **_: {"Successful": sent}, get_queue_attributes=lambda **_: {"Attributes": counts}
    )
    stack = FakeStack.make(calls=calls, sqs=client)
    stack.outputs.update(OrderedQueueUrl="queue.fifo", OrderedDeadLetterQueueUrl="dead.fifo")
    assert queues.a_fifo_queue_keeps_its_order(stack)[0] is holds


@pytest.mark.parametrize("waiting", [0, 3])
def test_the_retention_check_requires_a_record_in_the_dead_letter_queue(waiting):
    counts = {"ApproximateNumberOfMessages": str(waiting), "ApproximateNumberOfMessagesNotVisible": "0"}
    client = Client(get_queue_attributes=lambda **_: {"Attributes": counts})
    assert queues.what_is_queued_outlives_the_stack(FakeStack.make(sqs=client))[0] is (waiting > 0)
