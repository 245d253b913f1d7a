"""The event source mapping on FIFO queues, with coroutines in this process as functions."""

import asyncio
import json
from collections import Counter, defaultdict

import pytest

from dspy_lambda_infra.config import Sqs
from dspy_lambda_infra.local.answer import Answer
from dspy_lambda_infra.local.function import Throttled
from dspy_lambda_infra.local.mapping import EventSourceMapping
from dspy_lambda_infra.local.queues import Queue

GROUPS, OF_EACH = "abcde", 20
FAILURES = {"a3": 1, "a4": 2, "b0": 2, "c19": 1, "d7": 1, "d8": 1, "e10": 2}


class Stub:
    """A function that fails some messages several times, and after a failure the rest of the batch's message group.

    Attributes:
        done: bodies in the order of their success, by message group.
        receive_counts: by body, at its success.
        at_once: the most messages of one group that were worked on at the same time.
    """

    def __init__(self, failures=None, seconds=0.01):
        self.settings = self
        self.name, self.log = "Stub", lambda *_: None
        self.done = defaultdict(list)
        self.receive_counts = {}
        self.at_once = 0
        self._failures, self._failed = dict(failures or {}), Counter()
        self._seconds = seconds
        self._busy = Counter()

    async def invoke(self, payload):
        groups = defaultdict(list)
        for record in json.loads(payload)["Records"]:
            groups[record["attributes"]["MessageGroupId"]].append(record)
        failed = await asyncio.gather(*(self._run_group(*group) for group in groups.items()))
        failures = [{"itemIdentifier": identifier} for found in failed for identifier in found]
        return Answer(json.dumps({"batchItemFailures": failures}).encode())

    async def _run_group(self, group, records):
        self._busy[group] += 1
        self.at_once = max(self.at_once, self._busy[group])
        try:
            for position, record in enumerate(records):
                await asyncio.sleep(self._seconds)
                body = record["body"]
                self._failed[body] += 1
                if self._failed[body] <= self._failures.get(body, 0):
                    return [left["messageId"] for left in records[position:]]
                self.done[group].append(body)
                self.receive_counts[body] = int(record["attributes"]["ApproximateReceiveCount"])
            return []
        finally:
            self._busy[group] -= 1


def run_mapping(server, function, settings, bodies, wanted, visibility_seconds=1):
    """Send bodies by group, poll until that many are processed or the queue is idle, and return the queue."""
    queue = Queue(server.client, "Test", settings, visibility_seconds)
    for n in range(max(map(len, bodies.values()))):
        for group, texts in bodies.items():
            for text in texts[n : n + 1]:
                server.client.send_message(QueueUrl=queue.url, MessageBody=text, MessageGroupId=group)

    async def run():
        mapping = asyncio.create_task(EventSourceMapping(server.client, queue, function, settings).run())
        for _ in range(600):
            await asyncio.sleep(0.05)
            if sum(map(len, function.done.values())) >= wanted:
                break
        await asyncio.sleep(visibility_seconds + 0.3)  # a second delivery would arrive by now
        mapping.cancel()
        await asyncio.gather(mapping, return_exceptions=True)

    asyncio.run(run())
    return queue


def left_in(server, url):
    attributes = server.client.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    names = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")
    return sum(int(attributes[name]) for name in names)


@pytest.mark.parametrize("batch_size", [1, 10])
def test_message_groups_keep_their_order_despite_failures_and_concurrency(server, batch_size):
    settings = Sqs(fifo=True, batch_size=batch_size, maximum_concurrency=5, max_receive_count=50)
    bodies = {group: [f"{group}{n}" for n in range(OF_EACH)] for group in GROUPS}
    function = Stub(FAILURES)
    queue = run_mapping(server, function, settings, bodies, len(GROUPS) * OF_EACH)
    assert function.done == bodies
    assert function.at_once == 1
    assert (left_in(server, queue.url), left_in(server, queue.dead_letter_url)) == (0, 0)
    if batch_size == 1:
        assert function.receive_counts == {
            body: 1 + FAILURES.get(body, 0) for texts in bodies.values() for body in texts
        }


def test_a_message_group_continues_after_its_head_moves_to_the_dead_letter_queue(server):
    settings = Sqs(fifo=True, batch_size=1, max_receive_count=2)
    function = Stub({"a1": 99})
    queue = run_mapping(server, function, settings, {"a": ["a0", "a1", "a2", "a3"]}, 3)
    assert function.done == {"a": ["a0", "a2", "a3"]}
    (dead,) = server.client.receive_message(QueueUrl=queue.dead_letter_url, MaxNumberOfMessages=10)["Messages"]
    assert dead["Body"] == "a1"


def test_a_failure_in_a_6_mb_event_holds_back_its_groups_in_the_next_event_of_the_batch(server):
    """A batch over 6 MB becomes two consecutive events."""
    large = "x" * 900_000
    bodies = {"a": [f"a{n}{large}" for n in range(5)], "b": [f"b{n}{large}" for n in range(5)]}
    settings = Sqs(fifo=True, batch_size=10, max_receive_count=50, maximum_concurrency=2)
    function = Stub({bodies["a"][0]: 1})
    run_mapping(server, function, settings, bodies, 10)
    assert {group: [text[:2] for text in texts] for group, texts in function.done.items()} == {
        group: [text[:2] for text in texts] for group, texts in bodies.items()
    }


def test_throttling_keeps_the_fifo_order(server):
    class OftenThrottled(Stub):
        calls = 0

        async def invoke(self, payload):
            self.calls += 1
            if self.calls % 3 == 1:
                raise Throttled("Stub")
            return await super().invoke(payload)

    bodies = {"a": [f"a{n}" for n in range(4)], "b": [f"b{n}" for n in range(4)]}
    function = OftenThrottled()
    run_mapping(server, function, Sqs(fifo=True, batch_size=2, max_receive_count=50), bodies, 8)
    assert function.done == bodies


FLAKY = """
import pathlib
class Flaky(dspy.Module):
    async def aforward(self, folder: str, group: str, n: int, failures: int) -> int:
        path = pathlib.Path(folder)
        with (path / f"tries-{group}-{n}").open("a+") as tries:
            tries.write("x")
            if tries.tell() <= failures:
                raise ValueError("not yet")
        with (path / group).open("a") as done:
            done.write(f"{n} ")
        return n
"""


def test_the_handler_and_the_mapping_together_keep_the_fifo_order(make_project, make_local, lines, tmp_path):
    sqs = {"fifo": True, "batch_size": 4, "maximum_concurrency": 3, "max_receive_count": 50}
    sqs |= {"backoff_seconds": 1, "backoff_max_seconds": 2}
    project = make_project({"flaky": FLAKY}, **{"lambda": {"defaults": {"sqs": sqs}}})
    folder, of_each, failures = tmp_path / "shared", 6, {("a", 1): 2, ("b", 0): 1, ("c", 5): 1}
    folder.mkdir()

    async def run():
        async with make_local(project) as local, local.mappings(visibility_seconds=3) as server:
            await asyncio.gather(*(local.function("Flaky").invoke(b"{}") for _ in range(3)))  # cold starts
            url = local.queues["Flaky"].url
            for n in range(of_each):
                for group in "abc":
                    inputs = {"folder": str(folder), "group": group, "n": n, "failures": failures.get((group, n), 0)}
                    server.client.send_message(QueueUrl=url, MessageBody=json.dumps(inputs), MessageGroupId=group)
            for _ in range(300):
                if sum(call["outcome"] == "success" for call in lines.records.calls) == 3 * of_each:
                    return left_in(server, local.queues["Flaky"].dead_letter_url)
                await asyncio.sleep(0.1)

    assert asyncio.run(run()) == 0
    assert {group: (folder / group).read_text().split() for group in "abc"} == {
        group: list("012345") for group in "abc"
    }
