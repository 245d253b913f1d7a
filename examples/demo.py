"""`make demo`: the quickstart as Lambda functions on this machine, end to end, without account, key or Docker.

Runs the local Lambda with an embedded model server, calls each program over HTTP, sends a batch with one bad record
through SQS, and shows what came back. Exits 1 if anything is not as it should be.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dspy_lambda_infra.local import sandbox
from dspy_lambda_infra.local.local import LocalLambda
from dspy_lambda_infra.local.queues import QueueServer
from dspy_lambda_infra.model_server import ModelServer
from dspy_lambda_infra.project import load_project

QUICKSTART = Path(__file__).parent / "quickstart"
MODEL_SECONDS = 0.3
REQUESTS: dict[str, dict[str, Any]] = {
    "Answer": {"question": "Why is the sky blue?"},
    "Summarise": {"text": "A long text about a short thing.", "sentences": 1},
    "Triage": {"message": "I was charged twice in May. Ada, ada@example.com"},
    "Perspectives": {"question": "Should we ship on a Friday?"},
}
BATCH, BAD = 10, 4
WAIT_SECONDS = 60

Log = list[tuple[str, str]]


def main() -> int:
    """Run the demo."""
    begin = time.perf_counter()
    unconfined = sandbox.loopback_only()
    log: Log = []
    with ModelServer(delay_seconds=MODEL_SECONDS) as models:
        variables = {"OPENAI_API_KEY": "embedded", "DSPY_LAMBDA_API_BASE": models.url}
        local = LocalLambda(load_project(QUICKSTART), variables, lambda name, line: log.append((name, line)))
        print(f"network: {'loopback only' if unconfined is None else f'NOT confined to loopback here: {unconfined}'}")
        print(f"task root and HOME: {'read-only' if local.writable is None else f'NOT read-only: {local.writable}'}")
        print(f"model: embedded, answers after {MODEL_SECONDS} s\n")
        problems = asyncio.run(run(local, log))
        calls = models.stats()
    print(f"\nmodel server: {calls['requests']} requests over {calls['connections']} connections")
    for problem in problems:
        print(f"PROBLEM {problem}", file=sys.stderr)
    print(f"{'failed' if problems else 'done'} in {time.perf_counter() - begin:.1f} s")
    return 1 if problems else 0


async def run(local: LocalLambda, log: Log) -> list[str]:
    """HTTP, then SQS, then the logs of one call; what was not as expected."""
    async with local, local.mappings(visibility_seconds=2) as server, local.front("rest", 0) as address:
        problems = await over_http(address, log)
        problems += await through_sqs(local, server, log)
    problems += show_one_call(log)
    not_json = [line for _, line in log if not _is_json(line)]
    return problems + [f"a log line is not JSON: {line!r}" for line in not_json]


async def over_http(address: str, log: Log) -> list[str]:
    """Each program twice: the first call starts its function, the second finds it warm."""
    problems = []
    print(f"{'program':<14}{'status':<8}{'cold ms':>9}{'warm ms':>9}{'in':>6}{'out':>6}{'USD':>11}  what came back")
    for program, inputs in REQUESTS.items():
        first = await asyncio.to_thread(post, f"{address}/{program}", inputs)
        status, outputs, seconds = await asyncio.to_thread(post, f"{address}/{program}", inputs)
        (record,) = records(log, program)[-1:] or [{}]
        row = f"{program:<14}{status:<8}{first[2] * 1000:>9.0f}{seconds * 1000:>9.0f}"
        row += f"{record.get('input_tokens', '?'):>6}{record.get('output_tokens', '?'):>6}"
        print(f"{row}{record.get('cost_usd') or float('nan'):>11.7f}  {_shorten(outputs)}")
        question = str(next(iter(inputs.values())))
        if status != 200 or question not in json.dumps(outputs):
            problems.append(f"{program}: {status} {outputs}")
    return problems


async def through_sqs(local: LocalLambda, server: QueueServer, log: Log) -> list[str]:
    """Ten records of which one is no JSON: nine are done, that one ends in the dead-letter queue."""
    queue, before = local.queues["Answer"], len(records(log, "Answer"))
    bodies = [json.dumps({"question": f"What is {n} squared?"}) for n in range(1, BATCH + 1)]
    bodies[BAD - 1] = "What is 4 squared?"
    entries: Any = [{"Id": str(n), "MessageBody": body} for n, body in enumerate(bodies)]
    begin = time.perf_counter()
    await asyncio.to_thread(server.client.send_message_batch, QueueUrl=queue.url, Entries=entries)

    def done() -> list[dict[str, Any]]:
        return [record for record in records(log, "Answer")[before:] if record["outcome"] == "success"]

    await until(lambda: len(done()) >= BATCH - 1)
    seconds = time.perf_counter() - begin
    dead: list[Any] = []
    while not dead and time.perf_counter() - begin < WAIT_SECONDS:
        answer = await asyncio.to_thread(server.client.receive_message, QueueUrl=queue.dead_letter_url)
        dead = list(answer.get("Messages", []))
        await asyncio.sleep(0.1)
    received = sum(record["outcome"] == "invalid_input" for record in records(log, "Answer"))
    print(f"\nSQS: {len(done())} of {BATCH} records done in {seconds:.2f} s; the bad one was received ", end="")
    print(f"{received} time(s), then moved to the dead-letter queue: {[message['Body'] for message in dead]}")
    if len(done()) != BATCH - 1 or [message["Body"] for message in dead] != [bodies[BAD - 1]]:
        return ["SQS: not every good record was done once, or the bad one is not in the dead-letter queue"]
    return []


def show_one_call(log: Log) -> list[str]:
    """The log record and the metrics of the last HTTP call of Triage."""
    lines = [line for name, line in log if name == "TriageFunction"]
    record = next((line for line in reversed(lines) if "program call" in line), None)
    metrics = next((line for line in reversed(lines) if '"_aws"' in line), None)
    print(f"\none call's log record:\n{record}\n\nits metrics:\n{metrics}")
    return [] if record and metrics else ["no log record or no metrics of a call"]


def records(log: Log, program: str) -> list[dict[str, Any]]:
    """The log records of a program's calls so far."""
    found = [json.loads(line) for _, line in log if '"program call"' in line]
    return [record for record in found if record["program"] == program]


def post(url: str, body: dict[str, Any]) -> tuple[int, Any, float]:
    """POST JSON: status, the answer's JSON, seconds."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    begin = time.perf_counter()
    try:
        with urllib.request.urlopen(request, timeout=WAIT_SECONDS) as answer:
            return answer.status, json.load(answer), time.perf_counter() - begin
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace"), time.perf_counter() - begin


async def until(condition: Callable[[], bool]) -> None:
    """Wait, but not for ever."""
    begin = time.perf_counter()
    while not condition() and time.perf_counter() - begin < WAIT_SECONDS:  # noqa: ASYNC110
        await asyncio.sleep(0.02)


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _shorten(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 90 else f"{text[:89]}…"


if __name__ == "__main__":
    sys.exit(main())
