"""`make demo`: runs the quickstart as Lambda functions on this machine, end to end, without account, key or Docker.

Runs the local Lambda with an embedded model server, calls each program over HTTP, sends a batch with one bad record
through SQS, and shows the answers. Exits with 1 if anything is not as expected.
"""

from __future__ import annotations

import asyncio
import json
import sys
import textwrap
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
WIDTH = 80
MODEL_SECONDS = 0.3
# Each program's inputs and expected output fields.
REQUESTS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "Answer": ({"question": "Why is the sky blue?"}, {"answer"}),
    "Summarise": ({"text": "A long text about a short thing.", "sentences": 1}, {"summary"}),
    "Triage": ({"message": "Charged twice in May. Ada"}, {"reasoning", "queue", "tags", "contact"}),
    "Perspectives": ({"question": "Should we ship on a Friday?"}, {"views", "conclusion"}),
}
INTRODUCTION = f"""\
The four programs of examples/quickstart as Lambda functions on this machine: in
processes of AWS's runtime client, behind a local API Gateway and SQS. No key:
an embedded server replaces the model, with samples after {MODEL_SECONDS} s. Tokens and
USD are what the model would have reported for these prompts and answers,
counted in words.
"""
NEXT = """
Next:
  make serve                        the same until Ctrl-C; call it with curl
  . .venv/bin/activate              puts dspy-lambda on your PATH
  dspy-lambda local --project DIR   runs your own project, described in
                                    docs/project.md
"""
BATCH, BAD = 10, 4
WAIT_SECONDS = 60

Log = list[tuple[str, str]]


def main() -> int:
    """Run the demo."""
    begin = time.perf_counter()
    print(INTRODUCTION, flush=True)
    unconfined = sandbox.loopback_only()
    log: Log = []
    with ModelServer(delay_seconds=MODEL_SECONDS, samples=True) as models:
        variables = {"OPENAI_API_KEY": "embedded", "DSPY_LAMBDA_API_BASE": models.url}
        local = LocalLambda(load_project(QUICKSTART), variables, lambda name, line: log.append((name, line)))
        print_wrapped(
            f"network: {'loopback only' if unconfined is None else f'NOT confined to loopback: {unconfined}'}"
        )
        print_wrapped(f"code and home: {'read-only' if local.writable is None else f'NOT read-only: {local.writable}'}")
        problems = asyncio.run(run(local, log))
        calls = models.stats()
    print(f"\nModel server: {calls['requests']} requests over {calls['connections']} connections.")
    for problem in problems:
        print(f"PROBLEM {problem}", file=sys.stderr)
    print(f"{'Failed' if problems else 'Done'} in {time.perf_counter() - begin:.1f} s.")
    print(NEXT, end="")
    return 1 if problems else 0


async def run(local: LocalLambda, log: Log) -> list[str]:
    """Run HTTP, then SQS, then show the logs of one call; return what was not as expected."""
    async with local, local.mappings(visibility_seconds=2) as server, local.front("rest", 0) as address:
        problems = await over_http(address, log)
        problems += await through_sqs(local, server, log)
    problems += show_one_call(log)
    not_json = [line for _, line in log if not _is_json(line)]
    return problems + [f"a log line is not JSON: {line!r}" for line in not_json]


async def over_http(address: str, log: Log) -> list[str]:
    """Call each program twice: the first call starts its function, the second one finds it warm."""
    problems = []
    print("\nOver HTTP, each program twice: the first call starts its function.\n")
    print(f"{'program':<14}{'first ms':>9}{'second ms':>11}{'tokens in':>11}{'out':>5}{'USD':>11}")
    for program, (inputs, fields) in REQUESTS.items():
        print(f"{program:<14}", end="", flush=True)  # a cold start takes seconds: print the line in steps
        _, _, first = await asyncio.to_thread(post, f"{address}/{program}", inputs)
        print(f"{first * 1000:>9.0f}", end="", flush=True)
        status, outputs, second = await asyncio.to_thread(post, f"{address}/{program}", inputs)
        (record,) = records(log, program)[-1:] or [{}]
        print(
            f"{second * 1000:>11.0f}{record.get('input_tokens', '?'):>11}{record.get('output_tokens', '?'):>5}", end=""
        )
        print(f"{record.get('cost_usd') or float('nan'):>11.7f}")
        print_wrapped(f"POST /{program} {_json(inputs)}", indent=2)
        print_wrapped(f"{status} {_json(outputs)}", indent=2)
        if status != 200 or set(outputs) != fields:
            problems.append(f"{program}: {status} {outputs}")
    return problems


async def through_sqs(local: LocalLambda, server: QueueServer, log: Log) -> list[str]:
    """Send ten records, one of which is not JSON: nine succeed, and that one ends in the dead-letter queue."""
    queue, before = local.queues["Answer"], len(records(log, "Answer"))
    bodies = [json.dumps({"question": f"What is {n} squared?"}) for n in range(1, BATCH + 1)]
    bodies[BAD - 1] = "What is 4 squared?"
    entries: Any = [{"Id": str(n), "MessageBody": body} for n, body in enumerate(bodies)]
    print(f"\nThrough SQS, {BATCH} records in a batch, one of which is not JSON:", flush=True)
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
    print(f"  {len(done())} done in {seconds:.2f} s;", flush=True)
    print(f"  the bad one is in the dead-letter queue: {[message['Body'] for message in dead]}")
    if len(done()) != BATCH - 1 or [message["Body"] for message in dead] != [bodies[BAD - 1]]:
        return ["SQS: not every good record was done once, or the bad one is not in the dead-letter queue"]
    return []


def show_one_call(log: Log) -> list[str]:
    """Show the log record and the metrics of the last HTTP call of Triage."""
    lines = [line for name, line in log if name == "TriageFunction"]
    record = next((line for line in reversed(lines) if "program call" in line), None)
    metrics = next((line for line in reversed(lines) if '"_aws"' in line), None)
    if record is None or metrics is None:
        return ["no log record or no metrics of a call"]
    print("\nWhat CloudWatch would get of the last Triage call. Its log record:")
    print_wrapped(_json(json.loads(record)), indent=2)
    values = json.loads(metrics)
    (described,) = values["_aws"]["CloudWatchMetrics"]
    print(f"Its metrics, by program, in the namespace {described['Namespace']}:")
    names = [metric["Name"] for metric in described["Metrics"]]
    print_wrapped(", ".join(f"{name} {values[name][0]:g}" for name in names), indent=2)
    return []


def records(log: Log, program: str) -> list[dict[str, Any]]:
    """Return the log records of a program's calls so far."""
    found = [json.loads(line) for _, line in log if '"program call"' in line]
    return [record for record in found if record["program"] == program]


def post(url: str, body: dict[str, Any]) -> tuple[int, Any, float]:
    """POST JSON; return the status, the answer's JSON, and the seconds."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    begin = time.perf_counter()
    try:
        with urllib.request.urlopen(request, timeout=WAIT_SECONDS) as answer:
            return answer.status, json.load(answer), time.perf_counter() - begin
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace"), time.perf_counter() - begin


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, with a time limit."""
    begin = time.perf_counter()
    while not condition() and time.perf_counter() - begin < WAIT_SECONDS:  # noqa: ASYNC110
        await asyncio.sleep(0.02)


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def print_wrapped(text: str, indent: int = 0) -> None:
    """Print text wrapped to 80 columns, with all lines after the first one indented."""
    first, others = " " * indent, " " * (indent + 2)
    print(textwrap.fill(text, WIDTH, initial_indent=first, subsequent_indent=others, break_on_hyphens=False))


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


if __name__ == "__main__":
    sys.exit(main())
