"""Calls that never end do not delay others: the next invocation starts with free slots."""

import asyncio
import json
import time
from pathlib import Path

import pytest

from dspy_lambda_infra.local.local import CATALOGUE, LocalLambda
from dspy_lambda_infra.project import load_project
from tests.isolation.conftest import SCALE
from tests.support import AECHO, ECHO, failures, sqs

STUCK = """
import asyncio, time

class SyncSleep(dspy.Module):
    def forward(self, question: str = ""):
        time.sleep(600)

class IgnoresCancellation(dspy.Module):
    async def aforward(self, question: str = ""):
        while True:
            try:
                await asyncio.sleep(600)
            except BaseException:
                pass

class ToThread(dspy.Module):
    async def aforward(self, question: str = ""):
        await asyncio.to_thread(time.sleep, 600)
"""
COUNTS, ROUNDS = ([100, 200, 500], 10) if SCALE > 1 else ([100], 2)


def processes(service):
    """Megabytes and threads of a service's runtime clients."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environ = (folder / "environ").read_bytes().split(b"\0")
            is_python = (folder / "exe").resolve().name.startswith("python")
            status = (folder / "status").read_text()
        except OSError:
            continue
        if f"POWERTOOLS_SERVICE_NAME={service}".encode() in environ and is_python:
            values = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
            found.append((int(values["VmRSS"].split()[0]) // 1024, int(values["Threads"])))
    return found


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("kind", ["SyncSleep", "IgnoresCancellation", "ToThread", "Trickle", "ATrickle"])
def test_calls_after_a_stuck_one_are_answered_at_once(make_project, models, report, kind, count):
    program = {"Trickle": "Echo", "ATrickle": "AEcho"}.get(kind, kind)
    # Ten rounds exhaust the process, and its replacement's init must fit in an invocation.
    lambda_ = {"defaults": {"timeout_seconds": 6 if SCALE > 1 else 2}}
    app = f"stuck-{kind}-{count}".lower()
    project = load_project(
        make_project({"stuck": STUCK, "echo": ECHO, "aecho": AECHO}, app_id=app, **{"lambda": lambda_})
    )
    lines: list = []
    slowest, most, answered = 0.0, (0, 0), 0

    async def run():
        nonlocal slowest, most, answered
        variables = {"OPENAI_API_KEY": "k", "DSPY_LAMBDA_API_BASE": models.url}
        async with LocalLambda(project, variables, lambda _, line: lines.append(json.loads(line))) as local:
            function = local.function(CATALOGUE)
            fine = {
                name: json.dumps({"program": name, "inputs": {"question": "q"}}).encode() for name in ("Echo", "AEcho")
            }
            for payload in fine.values():
                await function.invoke(payload)
            batch = json.dumps(sqs(*[{"program": program, "inputs": {"question": "q"}}] * count)).encode()
            for _ in range(ROUNDS):
                models.behave(**({"trickle_seconds": 1.0} if "Trickle" in kind else {}))
                stuck = await function.invoke(batch)
                assert stuck.error is None, stuck
                assert len(failures(json.loads(stuck.payload))) == count
                models.behave()
                for payload in fine.values():
                    begin = time.monotonic()
                    answer = await function.invoke(payload)
                    slowest = max(slowest, time.monotonic() - begin)
                    assert answer.error is None, answer
                    answered += 1
                found = processes(app)
                most = max([most, *found], key=lambda seen: seen[1])

    asyncio.run(run())
    used_up = sum(line.get("message") == "process resources exhausted" for line in lines)
    report(
        ROUNDS * (count + 2),
        answered,
        ROUNDS * count,
        slowest_ms=round(slowest * 1000),
        most_mb_and_threads=most,
        replaced=used_up,
    )
    assert most[1] < 1000
