"""One poisonous record with nine healthy ones, through SQS and the local Lambda: no healthy one is lost.

`make test` runs one of each kind; `make stress` all of them.
"""

import asyncio
import json
from collections import Counter

import pytest

from dspy_lambda_infra.config import Sqs
from dspy_lambda_infra.local.local import CATALOGUE, LocalLambda
from dspy_lambda_infra.local.mapping import EventSourceMapping
from dspy_lambda_infra.local.queues import Queue, QueueServer
from dspy_lambda_infra.project import load_project
from tests.isolation.conftest import SCALE
from tests.isolation.poison import BLOCK, KILL, POISON, RAISE

QUEUE = {"maximum_concurrency": 2, "max_receive_count": 5, "backoff_seconds": 1, "backoff_max_seconds": 2}
SETTINGS = Sqs(**QUEUE)
KINDS = [*RAISE, *BLOCK, *KILL] if SCALE > 1 else ["own_cause", "blocked_loop", "exit"]


async def drain(project, models, runs, bodies, lines, visibility=12, seconds=300):
    """Send the bodies as one batch, wait until the queue is empty, and return the messages in the dead-letter queue."""
    variables = {"OPENAI_API_KEY": "k", "DSPY_LAMBDA_API_BASE": models.url, "RUNS": str(runs)}
    async with LocalLambda(load_project(project), variables, lambda _, line: lines.append(line)) as local:
        function = local.function(CATALOGUE)
        server = QueueServer()
        await asyncio.to_thread(server.start)
        try:
            queue = await asyncio.to_thread(Queue, server.client, "Poison", SETTINGS, visibility)
            local._reach_queues(CATALOGUE, server, queue)
            entries = [{"Id": str(n), "MessageBody": json.dumps(body)} for n, body in enumerate(bodies)]
            await asyncio.to_thread(server.client.send_message_batch, QueueUrl=queue.url, Entries=entries)
            mapping = asyncio.create_task(EventSourceMapping(server.client, queue, function, SETTINGS).run())
            names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
            for _ in range(seconds * 2):
                await asyncio.sleep(0.5)
                found = await asyncio.to_thread(
                    server.client.get_queue_attributes, QueueUrl=queue.url, AttributeNames=names
                )
                if all(found["Attributes"][name] == "0" for name in names):
                    break
            mapping.cancel()
            await asyncio.gather(mapping, return_exceptions=True)
            dead = await asyncio.to_thread(
                server.client.receive_message, QueueUrl=queue.dead_letter_url, MaxNumberOfMessages=10
            )
            return [json.loads(message["Body"]) for message in dead.get("Messages", [])]
        finally:
            await asyncio.to_thread(server.stop)


@pytest.mark.parametrize("kind", KINDS)
def test_no_healthy_record_is_lost_to_a_poisonous_one(make_project, models, tmp_path, kind, report):
    runs = tmp_path / "runs"
    runs.touch()
    memory = 512 if kind == "out_of_memory" else 1024
    settings = {"timeout_seconds": 3, "memory_mb": memory, "sqs": QUEUE}
    project = make_project({"poison": POISON}, **{"lambda": {"defaults": settings}})
    fine = [{"program": name, "inputs": {"n": n}} for n in range(5) for name in ("Fine", "AFine")][:9]
    poison = {"program": "Bad", "inputs": {"kind": kind}}
    lines: list[str] = []
    dead = asyncio.run(drain(project, models, runs, [*fine[:4], poison, *fine[4:]], lines))
    assert dead == [poison]
    counted = Counter(runs.read_text().split("\n"))
    most = {name: max(v for k, v in counted.items() if k.startswith(name)) for name in ("sync", "async")}
    assert sum(1 for k in counted if k.startswith(("sync", "async"))) == 9
    kills = kind in KILL
    assert most["sync"] <= (2 if kills else 1)
    assert most["async"] <= (1 if kind in RAISE else 2)
    for line in lines:
        if not kills:
            json.loads(line)
    report(10, 9, 1, kind=kind, most_runs=most, runs_of_the_poison=counted[f"poison {kind}"])
