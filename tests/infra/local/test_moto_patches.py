"""moto's SQS with and without the patches, each in its own server."""

import sys
import threading
import time
from functools import partial

import pytest
from moto.sqs import models as moto_sqs

from dspy_lambda_infra.config import Sqs
from dspy_lambda_infra.local import moto_patches
from dspy_lambda_infra.local.queues import Queue

VISIBILITY_SECONDS = 1


@pytest.fixture
def make_queue(server):
    def make(**settings):
        return Queue(
            server.client, "Test", Sqs(**{"fifo": True, "max_receive_count": 5} | settings), VISIBILITY_SECONDS
        )

    return make


@pytest.fixture
def send(server):
    def send(queue, group, *bodies):
        for body in bodies:
            server.client.send_message(QueueUrl=queue.url, MessageBody=body, MessageGroupId=group)

    return send


@pytest.fixture
def receive(server):
    def receive(queue, most=10, wait=0, url=None):
        answer = server.client.receive_message(
            QueueUrl=url or queue.url, MaxNumberOfMessages=most, WaitTimeSeconds=wait, AttributeNames=["All"]
        )
        return answer.get("Messages", [])

    return receive


@pytest.fixture
def hurried_threads():
    """Switch threads so often that unlocked updates fail visibly."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def bodies(messages):
    return [message["Body"] for message in messages]


def run_threads(targets):
    threads = [threading.Thread(target=target) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)


def wait_until_visible():
    time.sleep(VISIBILITY_SECONDS + 0.1)


def test_unpatched_moto_delivers_a_later_fifo_message_first(make_queue, send, receive, monkeypatch):
    """The fault that the patch fixes. Once moto keeps the order, this test fails and the patch can be removed."""
    monkeypatch.setattr(moto_sqs.SQSBackend, "receive_message", moto_patches.receive_as_moto)
    queue = make_queue()
    send(queue, "g", "1", "2")
    assert bodies(receive(queue)) == ["1", "2"]
    wait_until_visible()
    assert bodies(receive(queue)) == ["2"]


def test_messages_that_become_visible_again_are_delivered_in_order(make_queue, send, receive):
    queue = make_queue()
    send(queue, "g", "1", "2", "3")
    assert bodies(receive(queue, most=2)) == ["1", "2"]
    wait_until_visible()
    assert bodies(receive(queue)) == ["1", "2", "3"]


def test_a_message_in_flight_blocks_only_its_own_group(server, make_queue, send, receive):
    queue = make_queue()
    send(queue, "g", "1", "2", "3")
    first, second = receive(queue, most=2)
    send(queue, "h", "other")
    assert bodies(receive(queue)) == ["other"]
    server.client.delete_message(QueueUrl=queue.url, ReceiptHandle=first["ReceiptHandle"])
    assert receive(queue) == []
    server.client.delete_message(QueueUrl=queue.url, ReceiptHandle=second["ReceiptHandle"])
    assert bodies(receive(queue)) == ["3"]


def test_an_invisible_head_blocks_the_rest_of_its_message_group(server, make_queue, send, receive):
    queue = make_queue()
    send(queue, "g", "1", "2")
    head = receive(queue)[0]["ReceiptHandle"]
    server.client.change_message_visibility(QueueUrl=queue.url, ReceiptHandle=head, VisibilityTimeout=2)
    wait_until_visible()
    assert receive(queue) == []
    assert bodies(receive(queue, wait=3)) == ["1", "2"]


@pytest.mark.parametrize("received_again", [False, True])
def test_an_expired_receipt_handle_cannot_hide_a_message(server, make_queue, send, receive, received_again):
    queue = make_queue()
    send(queue, "g", "1", "2")
    head = receive(queue)[0]["ReceiptHandle"]
    wait_until_visible()
    if received_again:
        receive(queue)
    entry = {"Id": "0", "ReceiptHandle": head, "VisibilityTimeout": 0 if received_again else 30}
    answer = server.client.change_message_visibility_batch(QueueUrl=queue.url, Entries=[entry])
    assert [failed["Id"] for failed in answer["Failed"]] == ["0"]
    assert bodies(receive(queue)) == ([] if received_again else ["1", "2"])


def test_a_blocked_message_is_not_counted_as_received(make_queue, send, receive):
    queue = make_queue()
    send(queue, "g", "1", "2")
    receive(queue, most=1)
    for _ in range(5):
        assert receive(queue) == []
    wait_until_visible()
    counts = [message["Attributes"]["ApproximateReceiveCount"] for message in receive(queue)]
    assert counts == ["2", "1"]


def test_a_head_over_the_receive_limit_moves_to_the_dead_letter_queue_and_unblocks_its_group(make_queue, send, receive):
    queue = make_queue(max_receive_count=2)
    send(queue, "g", "1", "2")
    for _ in range(2):
        assert bodies(receive(queue, most=1)) == ["1"]
        wait_until_visible()
    assert bodies(receive(queue)) == ["2"]
    assert bodies(receive(queue, url=queue.dead_letter_url)) == ["1"]


@pytest.mark.parametrize("fifo", [True, False])
def test_messages_sent_as_a_batch_keep_their_trace_header(server, make_queue, receive, fifo):
    queue = make_queue(fifo=fifo)
    group = {"MessageGroupId": "1"} if fifo else {}
    header = {"AWSTraceHeader": {"DataType": "String", "StringValue": "Root=1-5759e988-bd862e3fe1be46a994272793"}}
    entries = [
        {"Id": "traced", "MessageBody": "a", "MessageSystemAttributes": header, **group},
        {"Id": "other", "MessageBody": "b", **group},
    ]
    server.client.send_message_batch(QueueUrl=queue.url, Entries=entries)
    found = {message["Body"]: message["Attributes"].get("AWSTraceHeader") for message in receive(queue)}
    assert found == {"a": "Root=1-5759e988-bd862e3fe1be46a994272793", "b": None}


def test_a_long_poll_returns_when_a_message_arrives(make_queue, send, receive):
    queue = make_queue()
    timer = threading.Timer(0.3, send, (queue, "g", "late"))
    timer.start()
    begin = time.monotonic()
    assert bodies(receive(queue, wait=5)) == ["late"]
    assert time.monotonic() - begin < 2
    timer.join()


def test_concurrent_consumers_receive_each_message_once_and_in_order(server, make_queue, send, receive):
    queue = make_queue()
    groups, of_each, received, lock = "abcd", 20, [], threading.Lock()

    def work():
        while len(received) < len(groups) * of_each:
            for message in receive(queue, most=3, wait=1):
                with lock:
                    received.append(message["Body"])
                server.client.delete_message(QueueUrl=queue.url, ReceiptHandle=message["ReceiptHandle"])

    bodies_of = {group: [f"{group}{n}" for n in range(of_each)] for group in groups}
    run_threads([partial(send, queue, group, *bodies_of[group]) for group in groups] + [work] * 4)
    assert {group: [body for body in received if body[0] == group] for group in groups} == bodies_of


@pytest.mark.usefixtures("hurried_threads")
def test_concurrent_deletes_restore_no_message():
    """Unpatched moto rebuilds a queue's message list on each delete, in a thread per request."""
    assert moto_patches.patch_fifo_order() is None
    queue = moto_sqs.Queue("Test", "us-east-1", "123456789012")
    handles = []
    for n in range(500):
        message = moto_sqs.Message(str(n), "body")
        message.mark_received()
        queue.add_message(message)
        handles.append(message.receipt_handle)
    run_threads([lambda some=handles[n::8]: [queue.delete_message(handle) for handle in some] for n in range(8)])
    assert queue._messages == []


def test_the_patches_match_the_installed_moto():
    assert moto_patches.patch_fifo_order() is None


def test_a_moto_without_the_patched_functions_is_not_patched(monkeypatch):
    monkeypatch.setattr(moto_sqs.SQSBackend, "receive_message", moto_patches.receive_as_moto)
    monkeypatch.delattr(moto_sqs.Message, "visible")
    assert "visible" in moto_patches.patch_fifo_order()
    assert moto_sqs.SQSBackend.receive_message is moto_patches.receive_as_moto
