import asyncio
import json
import time

import pytest
from botocore.exceptions import EndpointConnectionError

from dspy_lambda_infra.config import Sqs
from dspy_lambda_infra.local.answer import Answer
from dspy_lambda_infra.local.mapping import EventSourceMapping, failed_identifiers
from dspy_lambda_infra.local.queues import Queue
from tests.infra.local.support import SLEEPER, direct
from tests.support import AECHO, until

SENT = {"a", "b"}


@pytest.mark.parametrize(
    ("answer", "failed"),
    [
        ({"batchItemFailures": []}, set()),
        ({"batchItemFailures": None}, set()),
        ({}, set()),
        (None, set()),
        ({"batchItemFailures": [{"itemIdentifier": "a"}]}, {"a"}),
        ({"batchItemFailures": [{"itemIdentifier": ""}]}, SENT),
        ({"batchItemFailures": [{"itemIdentifier": None}]}, SENT),
        ({"batchItemFailures": [{"itemIdentifier": "c"}]}, SENT),
        ({"batchItemFailures": [{"id": "a"}]}, SENT),
        ({"batchItemFailures": ["a"]}, SENT),
        ([1], SENT),
        ("text", SENT),
    ],
)
def test_a_batch_answer_fails_the_same_records_as_on_lambda(answer, failed):
    assert failed_identifiers(json.dumps(answer).encode(), SENT) == failed


def test_a_batch_answer_that_is_not_json_fails_all_records():
    assert failed_identifiers(b"oops", SENT) == SENT


def test_a_records_trace_header_is_among_its_attributes(server):
    header = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"
    received = []

    class Function:
        async def invoke(self, payload):
            received.extend(json.loads(payload)["Records"])
            return Answer(b"{}")

    async def run():
        queue = Queue(server.client, "Traced", Sqs(), 60)
        attributes = {"AWSTraceHeader": {"DataType": "String", "StringValue": header}}
        server.client.send_message(QueueUrl=queue.url, MessageBody="{}", MessageSystemAttributes=attributes)
        polling = asyncio.create_task(EventSourceMapping(server.client, queue, Function(), Sqs()).run())
        await until(lambda: received)
        polling.cancel()
        await asyncio.gather(polling, return_exceptions=True)

    asyncio.run(run())
    assert [record["attributes"]["AWSTraceHeader"] for record in received] == [header]


def test_only_the_bad_record_of_a_batch_ends_in_the_dead_letter_queue(make_project, make_local, models, lines):
    settings = {"defaults": {"sqs": {"batch_size": 10, "max_receive_count": 2, "backoff_seconds": 1}}}
    project = make_project({"aecho": AECHO}, **{"lambda": settings})

    async def run():
        async with make_local(project) as local, local.mappings(visibility_seconds=60) as server:
            # A cold start may outlast the visibility timeout, and the records would be received twice.
            await local.function("AEcho").invoke(b'{"inputs": {"question": "first"}}')
            queue = local.queues["AEcho"]
            entries = [{"Id": str(n), "MessageBody": json.dumps({"question": f"q{n}"})} for n in range(9)]
            entries.append({"Id": "bad", "MessageBody": "bad"})
            server.client.send_message_batch(QueueUrl=queue.url, Entries=entries)
            dead = []
            receive = lambda: server.client.receive_message(QueueUrl=queue.dead_letter_url)  # noqa: E731
            await until(lambda: dead.extend(receive().get("Messages", [])) or dead)
            left = server.client.get_queue_attributes(QueueUrl=queue.url, AttributeNames=["All"])["Attributes"]
            return dead, left

    dead, left = asyncio.run(run())
    assert [message["Body"] for message in dead] == ["bad"]
    assert int(left["ApproximateNumberOfMessages"]) + int(left["ApproximateNumberOfMessagesNotVisible"]) == 0
    assert models.stats()["requests"] == 10
    outcomes = [call["outcome"] for call in lines.records.calls]
    assert (outcomes.count("success"), outcomes.count("invalid_input")) == (10, 2)
    (told,) = [line for line in lines.lines if "dead-letter queue" in line.get("message", "")]
    assert told["message"] == "goes to the dead-letter queue after 2 receives (max_receive_count)"


def test_concurrent_batches_stay_within_maximum_concurrency(make_project, make_local, lines):
    settings = {"defaults": {"sqs": {"batch_size": 1, "maximum_concurrency": 2}, "reserved_concurrency": 5}}
    project = make_project({"sleeper": SLEEPER}, **{"lambda": settings})

    async def run():
        async with make_local(project) as local, local.mappings(visibility_seconds=30) as server:
            url = local.queues["Sleeper"].url
            for _ in range(6):
                server.client.send_message(QueueUrl=url, MessageBody='{"seconds": 0.3}')
            peaks = []
            await until(lambda: peaks.append(local.function("Sleeper")._active) or len(lines.records.calls) == 6)
            return max(peaks)

    assert asyncio.run(run()) == 2
    assert [call["outcome"] for call in lines.records.calls] == ["success"] * 6


def test_a_throttled_batch_returns_to_the_queue_and_is_processed_later(make_project, make_local, lines):
    settings = {"defaults": {"sqs": {"batch_size": 1}, "reserved_concurrency": 1}}
    project = make_project({"sleeper": SLEEPER}, **{"lambda": settings})

    async def run():
        async with make_local(project) as local, local.mappings(visibility_seconds=1) as server:
            busy = asyncio.create_task(local.function("Sleeper").invoke(direct(seconds=1.5)))
            await until(lambda: local.function("Sleeper")._active)
            server.client.send_message(QueueUrl=local.queues["Sleeper"].url, MessageBody="{}")
            await busy
            await until(lambda: len(lines.records.calls) == 2)

    asyncio.run(run())
    assert [call["source"] for call in lines.records.calls] == ["direct", "sqs"]


def test_a_batching_window_collects_records_into_one_batch(make_project, make_local, lines):
    settings = {"defaults": {"sqs": {"batch_size": 100, "window_seconds": 2}}}
    project = make_project({"sleeper": SLEEPER}, **{"lambda": settings})

    async def run():
        async with make_local(project) as local, local.mappings(visibility_seconds=30) as server:
            for _ in range(30):
                server.client.send_message(QueueUrl=local.queues["Sleeper"].url, MessageBody="{}")
            await until(lambda: len(lines.records.calls) == 30)

    asyncio.run(run())
    assert len({call["function_request_id"] for call in lines.records.calls}) == 1


def test_records_of_every_size_are_polled_and_split_to_fit_6_mb(make_project, make_local, lines):
    settings = {"defaults": {"sqs": {"batch_size": 10}}}
    project = make_project({"sleeper": SLEEPER}, **{"lambda": settings})
    large = json.dumps({"more": "x" * 1_000_000})

    async def run():
        async with make_local(project) as local, local.mappings(visibility_seconds=60) as server:
            url = local.queues["Sleeper"].url
            binary = {"blob": {"DataType": "Binary", "BinaryValue": b"\xff"}}
            server.client.send_message(QueueUrl=url, MessageBody="{}", MessageAttributes=binary)
            for _ in range(9):
                server.client.send_message(QueueUrl=url, MessageBody=large)
            await until(lambda: len(lines.records.calls) == 10)

    asyncio.run(run())
    assert [call["outcome"] for call in lines.records.calls] == ["success"] * 10


def test_the_poller_survives_a_queue_that_cannot_be_read(make_project, make_local, lines, monkeypatch):
    project = make_project({"sleeper": SLEEPER}, **{"lambda": {"defaults": {"sqs": {}}}})

    async def run():
        async with make_local(project) as local, local.mappings(visibility_seconds=60) as server:
            real, failed = server.client.receive_message, []

            def failing(**arguments):
                monkeypatch.setattr(server.client, "receive_message", real)
                failed.append(True)
                raise EndpointConnectionError(endpoint_url="moto")

            monkeypatch.setattr(server.client, "receive_message", failing)
            await until(lambda: failed)
            server.client.send_message(QueueUrl=local.queues["Sleeper"].url, MessageBody="{}")
            await until(lambda: lines.records.calls)

    asyncio.run(run())
    assert [call["outcome"] for call in lines.records.calls] == ["success"]
    assert any("cannot be read" in line.get("message", "") for line in lines.lines)


def test_a_rate_limited_record_succeeds_once_the_provider_allows_it(make_project, make_local, models, lines):
    settings = {"defaults": {"sqs": {"max_receive_count": 3}, "timeout_seconds": 3}}
    project = make_project({"aecho": AECHO}, **{"lambda": settings})
    models.behave(rate_limit_rate=1, retry_after_seconds=4)

    async def run():
        async with make_local(project) as local, local.mappings(visibility_seconds=300) as server:
            server.client.send_message(QueueUrl=local.queues["AEcho"].url, MessageBody='{"question": "q"}')
            await until(lambda: len(lines.records.calls) == 1)
            models.behave()
            await until(lambda: len(lines.records.calls) == 2)

    begin = time.monotonic()
    asyncio.run(run())
    assert [call["outcome"] for call in lines.records.calls] == ["rate_limited", "success"]
    assert 3 < time.monotonic() - begin < 250  # and not after the visibility timeout
