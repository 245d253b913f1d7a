import json

import pytest

from dspy_lambda_infra.config import Sqs
from dspy_lambda_infra.local.queues import Queue, QueueServer


def test_the_queue_client_does_not_use_the_developers_profile(monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "none-of-that-name")
    server = QueueServer()
    server.start()
    server.stop()


@pytest.mark.parametrize("fifo", [False, True])
def test_a_local_queue_has_its_dead_letter_queue_receive_count_and_visibility_timeout(server, fifo):
    queue = Queue(server.client, "Echo", Sqs(fifo=fifo, max_receive_count=7), 42)
    assert queue.name == ("EchoQueue.fifo" if fifo else "EchoQueue")
    read = server.client.get_queue_attributes
    found = read(QueueUrl=queue.url, AttributeNames=["All"])["Attributes"]
    dead = read(QueueUrl=queue.dead_letter_url, AttributeNames=["All"])["Attributes"]
    redrive = json.loads(found["RedrivePolicy"])
    assert (redrive["deadLetterTargetArn"], redrive["maxReceiveCount"]) == (dead["QueueArn"], 7)
    assert found["VisibilityTimeout"] == "42"
    assert dead["MessageRetentionPeriod"] == str(14 * 24 * 3600)
    assert (found.get("ContentBasedDeduplication"), dead.get("FifoQueue")) == (
        ("true", "true") if fifo else (None, None)
    )


def test_a_new_queue_server_starts_without_earlier_queues(server):
    Queue(server.client, "Echo", Sqs(), 42)
    other = QueueServer()
    other.start()
    try:
        assert "QueueUrls" not in other.client.list_queues()
    finally:
        other.stop()
