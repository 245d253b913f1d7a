"""The effects of a provider's outage and of a record's own fault, with time running SCALE times as fast.

Only the clocks are others: the pauses are what the handler says, in moto's seconds and in those of its LM.
"""

import asyncio
import json
import re
import time
from collections import Counter, defaultdict

import pytest
from aiohttp import web
from moto.sqs import models as moto_sqs

from dspy_lambda_infra.local import moto_patches
from dspy_lambda_infra.local.local import LocalLambda
from dspy_lambda_infra.model_server import completion
from dspy_lambda_infra.project import load_project
from tests.support import AECHO

SCALE = 300
OUTAGE_SECONDS = 600
RECORDS = 10
# Only in the function: the test process also loads the project.
QUICK_SLEEP = f"""
import asyncio, os, time, types
from dspy.clients import execution
if "AWS_LAMBDA_RUNTIME_API" in os.environ:
    execution.time = types.SimpleNamespace(**vars(time) | {{"sleep": lambda seconds: time.sleep(seconds / {SCALE})}})
    quick = {{"sleep": lambda seconds: asyncio.sleep(seconds / {SCALE})}}
    execution.asyncio = types.SimpleNamespace(**vars(asyncio) | quick)
"""


@pytest.fixture(autouse=True)
def _quick_queues(monkeypatch):
    began = time.time()
    monkeypatch.setattr(moto_sqs, "unix_time_millis", lambda: 1000 * (began + (time.time() - began) * SCALE))
    monkeypatch.setattr(moto_patches, "_POLL_SECONDS", 0.005)


class Provider:
    """Refuses every request during the outage.

    Attributes:
        requests: when each question was asked (`time.monotonic()`).
        refused: when each of them was refused.
        over: when the outage ends.
    """

    def __init__(self, retry_after):
        self.requests, self.refused = defaultdict(list), defaultdict(list)
        self.over = float("inf")
        self._headers = {} if retry_after is None else {"Retry-After": retry_after}

    async def start(self):
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._complete)
        self.runner = web.AppRunner(app, access_log=None)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{self.runner.addresses[0][1]}/v1"

    def begin(self):
        self.requests.clear()
        self.refused.clear()
        self.over = time.monotonic() + OUTAGE_SECONDS / SCALE

    async def _complete(self, request):
        body = await request.json()
        question = re.search(r"\bq\d+\b", str(body["messages"][-1]["content"]))[0]
        self.requests[question].append(time.monotonic())
        if time.monotonic() < self.over:
            self.refused[question].append(time.monotonic())
            return web.json_response({"error": {"message": "later"}}, status=429, headers=self._headers)
        return web.json_response(completion(body, f"[[ ## answer ## ]]\n{question}\n\n[[ ## completed ## ]]"))


async def left_in(server, url):
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    found = await asyncio.to_thread(server.client.get_queue_attributes, QueueUrl=url, AttributeNames=names)
    return sum(int(found["Attributes"][name]) for name in names)


async def until_empty(server, queue, seconds=30):
    """Wait until the queue's last message is processed or dead-lettered."""
    until = time.monotonic() + seconds
    empty = 0
    while empty < 5:  # once is not enough: a message that is becoming visible again is briefly not counted
        assert time.monotonic() < until, "the queue is not empty"
        await asyncio.sleep(0.05)
        empty = 0 if await left_in(server, queue.url) else empty + 1


async def dead_letters(server, queue):
    found = await asyncio.to_thread(
        server.client.receive_message,
        QueueUrl=queue.dead_letter_url,
        MaxNumberOfMessages=10,
        MessageAttributeNames=["All"],
    )
    return found.get("Messages", [])


async def send(server, queue, *bodies, **fields):
    entries = [{"Id": str(n), "MessageBody": json.dumps(body), **fields} for n, body in enumerate(bodies)]
    await asyncio.to_thread(server.client.send_message_batch, QueueUrl=queue.url, Entries=entries)


@pytest.mark.parametrize(
    ("retry_after", "fifo"), [("0", False), ("1", False), ("60", False), ("60", True), ("1e308", False), (None, False)]
)
def test_a_ten_minute_outage_loses_no_record_with_default_settings(make_project, lines, retry_after, fifo):
    # All defaults except this: an invocation takes real time, which at SCALE would exceed the queue's timeouts.
    sqs = {"visibility_timeout_seconds": 10_000, "fifo": fifo}
    project = make_project({"aecho": QUICK_SLEEP + AECHO}, **{"lambda": {"defaults": {"sqs": sqs}}})

    async def run():
        provider = Provider(retry_after)
        variables = {"OPENAI_API_KEY": "k", "DSPY_LAMBDA_API_BASE": await provider.start()}
        async with LocalLambda(load_project(project), variables, lines) as local, local.mappings() as server:
            await local.function("AEcho").invoke(b"{}")  # keep the cold start out of the outage
            queue = local.queues["AEcho"]
            provider.begin()
            fields = {"MessageGroupId": "g"} if fifo else {}
            await send(server, queue, *({"question": f"q{n}"} for n in range(RECORDS)), **fields)
            await until_empty(server, queue)
            await provider.runner.cleanup()
            return provider.requests, provider.refused, await left_in(server, queue.dead_letter_url)

    requests, refused, dead = asyncio.run(run())
    assert dead == 0
    assert len(requests) == RECORDS
    # Counted from the refusal: a request may have waited at the provider, for milliseconds that count SCALE times.
    gaps = [SCALE * (b - a) for name, times in requests.items() for a, b in zip(refused[name], times[1:], strict=False)]
    assert min(gaps) >= 1
    if fifo:
        done = [times[-1] for times in requests.values()]
        assert done == sorted(done)


FAULTY = """
import os

class Faulty(dspy.Module):
    async def aforward(self, fault: str) -> str:
        with open(os.environ["RUNS"], "a") as runs:
            runs.write(f"{fault}\\n")
        if fault == "raise":
            raise ValueError("always")
        if fault == "exit":
            os._exit(1)
        return fault
"""


def make_faulty(project, lines, tmp_path):
    variables = {"OPENAI_API_KEY": "k", "RUNS": str(tmp_path / "runs")}
    return LocalLambda(load_project(project), variables, lines)


def test_a_record_that_always_raises_is_dead_lettered_after_five_runs(make_project, lines, tmp_path):
    project = make_project({"faulty": FAULTY}, **{"lambda": {"defaults": {"sqs": {}}}})

    async def run():
        async with make_faulty(project, lines, tmp_path) as local, local.mappings() as server:
            await local.function("Faulty").invoke(b"{}")
            queue = local.queues["Faulty"]
            await send(server, queue, {"fault": "raise"}, {"fault": "none"})
            await until_empty(server, queue)
            return await dead_letters(server, queue)

    (dead,) = asyncio.run(run())
    assert json.loads(dead["Body"]) == {"fault": "raise"}
    reason = dead["MessageAttributes"]["Reason"]["StringValue"]
    assert reason.startswith("The program raised an exception")
    assert Counter((tmp_path / "runs").read_text().split()) == {"raise": 5, "none": 1}


def test_a_record_that_kills_its_environment_is_dead_lettered_after_five_runs(make_project, lines, tmp_path):
    """Sends its own events: an environment that restarts each time cannot keep up with an accelerated queue."""
    project = make_project({"faulty": FAULTY}, **{"lambda": {"defaults": {"sqs": {}}}})
    record = {"messageId": "m", "receiptHandle": "r", "body": '{"fault": "exit"}', "eventSource": "aws:sqs"}
    record["eventSourceARN"] = "arn:aws:sqs:us-east-1:123456789012:FaultyQueue"

    async def run():
        async with make_faulty(project, lines, tmp_path) as local, local.mappings() as server:
            answers = []
            for received in range(1, 7):
                record["attributes"] = {"ApproximateReceiveCount": str(received)}
                answer = await local.function("Faulty").invoke(json.dumps({"Records": [record]}).encode())
                answers.append("died" if answer.error else json.loads(answer.payload))
            return answers, await dead_letters(server, local.queues["Faulty"])

    answers, (dead,) = asyncio.run(run())
    assert answers == ["died"] * 5 + [{"batchItemFailures": []}]
    reason = dead["MessageAttributes"]["Reason"]["StringValue"]
    assert reason.startswith("The execution environment died while this record ran alone.")
    assert Counter((tmp_path / "runs").read_text().split()) == {"exit": 5}
