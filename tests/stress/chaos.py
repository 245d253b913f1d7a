"""A run of the local Lambda in which processes are killed and the model fails in every way."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from dspy_lambda_infra.local.local import LocalLambda
from dspy_lambda_infra.project import load_project
from tests.stress.chaos_model import KillableModel

PROGRAMS = """
import os, time

def note(what, message, request_id):
    descriptor = os.open(os.environ["RUNS"], os.O_WRONLY | os.O_APPEND)
    os.write(descriptor, f"{what} {message} {request_id} {time.monotonic()}\\n".encode())
    os.close(descriptor)

class Program(dspy.Module):
    def __init__(self):
        super().__init__()
        self.predict = dspy.Predict("question -> answer")

class Sync(Program):
    def forward(self, message: str) -> dspy.Prediction:
        request_id = dspy.settings.lm.call.invocation.request_id
        note("begin", message, request_id)
        answer = self.predict(question=f"{message} {request_id}")
        note("end", message, request_id)
        return answer

class Async(Program):
    async def aforward(self, message: str) -> dspy.Prediction:
        request_id = dspy.settings.lm.call.invocation.request_id
        note("begin", message, request_id)
        answer = await self.predict.acall(question=f"{message} {request_id}")
        note("end", message, request_id)
        return answer

class Ordered(Async):
    pass
"""
Send = Callable[[], Awaitable[None]]
NAMES = ["Sync", "Async", "Ordered"]
GROUPS = 10
AT_ONCE, HEAD_START = 5, 6  # messages per request, and requests before the first kill
TIMEOUT_SECONDS, VISIBILITY_SECONDS = 2, 4
SQS = {"batch_size": 10, "maximum_concurrency": 2, "max_receive_count": 30, "backoff_seconds": 1}
SETTINGS = {
    "defaults": {
        "timeout_seconds": TIMEOUT_SECONDS,
        "reserved_concurrency": 2,
        "http": False,
        "sqs": {**SQS, "backoff_max_seconds": 2},
    },
    "programs": {"Ordered": {"sqs": {"fifo": True}}},
}
USUAL = {"delay_seconds": 0.1}
WEATHER: list[dict[str, Any]] = [
    {},
    {"error_rate": 0.4},
    {"rate_limit_rate": 0.4},
    {"rate_limit_rate": 0.4, "retry_after_seconds": 1},
    {"hang_rate": 0.1},
    {"reset_rate": 0.4},
    {"drop_rate": 0.4},
    {"trickle_seconds": 0.002},
]
_ATTRIBUTES = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]


@dataclass
class Chaos:
    """One run and its observations. Times are `time.monotonic()`, which all processes of a machine share.

    Attributes:
        sent: messages (their names) by messageId.
        received: when each message was received, by messageId.
        lines: what a function or Lambda itself logged, and when.
        kills: when a runtime process was killed.
        left: messages still in the queues and dead-letter queues at the end.
    """

    project: Path
    runs: Path
    model: KillableModel
    service: str
    rng: Random
    sent: dict[str, str] = field(default_factory=dict)
    received: list[tuple[float, str]] = field(default_factory=list)
    lines: list[tuple[float, str]] = field(default_factory=list)
    kills: list[float] = field(default_factory=list)
    restarts: int = 0
    left: int = -1
    _waiting: deque[tuple[str, list[dict[str, str]]]] = field(default_factory=deque)
    _is_over: bool = False

    async def run(self, messages: int, kills: int, restarts: int, seconds: float) -> None:
        """Send the messages, kill and restart processes within these seconds, and wait until the queues are empty."""
        self.runs.touch()
        variables = {"OPENAI_API_KEY": "k", "DSPY_LAMBDA_API_BASE": self.model.url, "RUNS": str(self.runs)}
        log = lambda _, line: self.lines.append((time.monotonic(), line))  # noqa: E731
        async with (
            LocalLambda(load_project(self.project), variables, log) as local,
            local.mappings(VISIBILITY_SECONDS) as server,
        ):
            server.client.meta.events.register("after-call.sqs.ReceiveMessage", self._note_received)
            self._waiting = deque(_entries(messages))
            send = partial(self._send_some, server.client, local.queues)
            await asyncio.gather(
                self._send(send, kills),
                self._kill(kills, seconds, send),
                self._restart(restarts, seconds),
                self._change_weather(seconds),
            )
            while self._waiting:
                await send()
            await asyncio.to_thread(self.model.behave, **USUAL)
            self.left = await _wait_until_empty(server.client, local.queues)

    def _note_received(self, parsed: dict[str, Any], **_: Any) -> None:
        now = time.monotonic()
        self.received += [(now, message["MessageId"]) for message in parsed.get("Messages", [])]

    async def _send(self, send: Send, kills: int) -> None:
        """Send a share of the messages after each kill, so that there is always something to do."""
        requests = len(self._waiting)
        while self._waiting and not self._is_over:
            due = HEAD_START + requests * len(self.kills) / kills
            if requests - len(self._waiting) < due:
                await send()
            await asyncio.sleep(0.05)

    async def _send_some(self, client: Any, queues: dict[str, Any]) -> None:
        name, entries = self._waiting.popleft()
        answer = await asyncio.to_thread(client.send_message_batch, QueueUrl=queues[name].url, Entries=entries)
        assert len(answer["Successful"]) == len(entries)
        self.sent |= {one["MessageId"]: f"{name}-{one['Id']}" for one in answer["Successful"]}

    async def _kill(self, kills: int, seconds: float, send: Send) -> None:
        while len(self.kills) < kills and (found := await self._find_processes(send)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.rng.choice(found), signal.SIGKILL)
                self.kills.append(time.monotonic())
            await asyncio.sleep(self.rng.expovariate(kills / seconds / 0.9))
        self._is_over = True

    async def _find_processes(self, send: Send) -> list[int]:
        """Return processes that can be killed; if there are none, send more messages or wait."""
        until = time.monotonic() + 2 * VISIBILITY_SECONDS
        while not (found := await asyncio.to_thread(runtime_processes, self.service)):
            if self._waiting:
                await send()
            elif time.monotonic() > until:
                break
            await asyncio.sleep(0.5)
        return found

    async def _restart(self, restarts: int, seconds: float) -> None:
        for _ in range(restarts):
            await asyncio.sleep(self.rng.uniform(0.5, 1) * seconds / (restarts + 1))
            await asyncio.to_thread(self.model.restart)
            self.restarts += 1

    async def _change_weather(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            weather = USUAL | self.rng.choice(WEATHER) | {"seed": self.rng.randrange(10**6)}
            with contextlib.suppress(OSError):  # it is being restarted with the last process
                await asyncio.to_thread(self.model.behave, **weather)
            await asyncio.sleep(self.rng.uniform(0.3, 1.5))


def _entries(messages: int) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """The messages in batch requests, the programs in turn; every tenth one of a FIFO queue is of the same group."""
    each = messages // len(NAMES)
    for start in range(0, each, AT_ONCE):
        for name in NAMES:
            yield name, [_entry(name, n) for n in range(start, min(start + AT_ONCE, each))]


def _entry(name: str, number: int) -> dict[str, str]:
    entry = {"Id": str(number), "MessageBody": json.dumps({"message": f"{name}-{number}"})}
    return entry | ({"MessageGroupId": f"g{number % GROUPS}"} if name == "Ordered" else {})


async def _wait_until_empty(client: Any, queues: dict[str, Any], seconds: float = 40) -> int:
    """Messages that are left in queues after that long, and in dead-letter queues."""
    until = time.monotonic() + seconds
    urls = [queue.url for queue in queues.values()]
    while (left := await asyncio.to_thread(_count, client, urls)) and time.monotonic() < until:
        await asyncio.sleep(0.2)
    return left + _count(client, [queue.dead_letter_url for queue in queues.values()])


def _count(client: Any, urls: list[str]) -> int:
    found = [client.get_queue_attributes(QueueUrl=url, AttributeNames=_ATTRIBUTES)["Attributes"] for url in urls]
    return sum(int(attributes[name]) for attributes in found for name in _ATTRIBUTES)


def runtime_processes(service: str, *, all_of_them: bool = False) -> list[int]:
    """The ids of a service's runtime clients; with what started them, if asked for."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environ = (folder / "environ").read_bytes().split(b"\0")
            is_python = (folder / "exe").resolve().name.startswith("python")
        except OSError:
            continue
        if f"POWERTOOLS_SERVICE_NAME={service}".encode() in environ and (is_python or all_of_them):
            found.append(int(folder.name))
    return found
