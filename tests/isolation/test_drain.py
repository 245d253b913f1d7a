"""After an outage, when every record comes back, the queue drains fast: records do not run one by one."""

import asyncio
import json
import time

from dspy_lambda_infra.config import Sqs
from dspy_lambda_infra.local.local import LocalLambda
from dspy_lambda_infra.local.mapping import EventSourceMapping
from dspy_lambda_infra.local.queues import Queue, QueueServer
from dspy_lambda_infra.project import load_project
from tests.isolation.conftest import SCALE
from tests.support import AECHO

# The first batch runs one by one, which takes 5 s. moto is slow with more than a thousand messages.
MESSAGES = 300 if SCALE == 1 else 1000
SETTINGS = Sqs(batch_size=10, maximum_concurrency=5)


async def fill(client, queue, returned):
    """Send all messages; each has been received once before if `returned`."""
    for start in range(0, MESSAGES, 10):
        entries = [{"Id": str(n), "MessageBody": json.dumps({"question": f"q{n}"})} for n in range(start, start + 10)]
        await asyncio.to_thread(client.send_message_batch, QueueUrl=queue.url, Entries=entries)
    seen = []
    while returned and len(seen) < MESSAGES:
        found = await asyncio.to_thread(
            client.receive_message, QueueUrl=queue.url, MaxNumberOfMessages=10, VisibilityTimeout=300
        )
        seen += found.get("Messages", [])
    for start in range(0, len(seen), 10):
        entries = [
            {"Id": str(n), "ReceiptHandle": one["ReceiptHandle"], "VisibilityTimeout": 0}
            for n, one in enumerate(seen[start : start + 10])
        ]
        await asyncio.to_thread(client.change_message_visibility_batch, QueueUrl=queue.url, Entries=entries)


async def drain(project, models, returned):
    """Seconds from the first message to an empty queue."""
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    variables = {"OPENAI_API_KEY": "k", "DSPY_LAMBDA_API_BASE": models.url}
    async with LocalLambda(project, variables) as local:
        function, server = local.function("AEcho"), QueueServer()
        await asyncio.to_thread(server.start)
        queue = await asyncio.to_thread(Queue, server.client, "Drain", SETTINGS, 60)
        local._reach_queues("AEcho", server, queue)
        await fill(server.client, queue, returned)
        begin = time.monotonic()
        mapping = asyncio.create_task(EventSourceMapping(server.client, queue, function, SETTINGS).run())
        while True:
            await asyncio.sleep(0.2)
            found = await asyncio.to_thread(
                server.client.get_queue_attributes, QueueUrl=queue.url, AttributeNames=names
            )
            if all(found["Attributes"][name] == "0" for name in names):
                break
        seconds = time.monotonic() - begin
        mapping.cancel()
        await asyncio.gather(mapping, return_exceptions=True)
        await asyncio.to_thread(server.stop)
        return seconds


def test_a_queue_of_returned_records_drains_about_as_fast_as_a_new_one(make_project, models, report):
    project = load_project(make_project({"aecho": AECHO}))
    seconds = {}
    for returned in (False, True):
        models.behave(delay_seconds=0.5)
        seconds[returned] = asyncio.run(drain(project, models, returned))
        assert models.stats()["requests"] == MESSAGES
    ratio = seconds[True] / seconds[False]
    report(2 * MESSAGES, 2 * MESSAGES, 0, seconds={k: round(v, 1) for k, v in seconds.items()}, ratio=round(ratio, 2))
