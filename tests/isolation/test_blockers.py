"""Calls that block the loop are answered before Lambda's timeout or, if they hold the interpreter's lock,
located by file and line."""

import asyncio
import json
import re
from collections import Counter

from dspy_lambda_infra.local.local import CATALOGUE, LocalLambda
from dspy_lambda_infra.project import load_project
from tests.isolation.conftest import SCALE

BLOCKERS = """
import asyncio, os, re, socket, subprocess, threading, time
from typing import Annotated
from pydantic import AfterValidator, BaseModel, field_serializer

class Result(BaseModel):
    x: int = 1
    @field_serializer("x")
    def slowly(self, value):
        time.sleep(30)
        return value

class SlowDict:
    def toDict(self):
        time.sleep(30)

def numbers():
    for n in range(300):
        time.sleep(0.1)
        yield n

def slow(value):
    if value == "validator": time.sleep(30)
    return value

class Blocks(dspy.Module):
    def __init__(self):
        super().__init__()
        for _ in range(IDLE if "AWS_LAMBDA_FUNCTION_NAME" in os.environ else 0):
            threading.Thread(target=time.sleep, args=(900,), daemon=True).start()

    async def aforward(self, kind: Annotated[str, AfterValidator(slow)]):
        if kind == "sleep": time.sleep(30)
        if kind == "processor":
            until = time.monotonic() + 30
            while time.monotonic() < until: pass
        if kind == "lock":
            lock = threading.Lock()
            lock.acquire(); lock.acquire()
        if kind == "child_process": subprocess.run(["sleep", "30"])
        if kind == "socket":
            ours, theirs = socket.socketpair()
            ours.recv(1)
        if kind == "toDict": return SlowDict()
        if kind == "generator": return {"numbers": numbers()}
        if kind == "serializer": return Result()
        if kind == "regex": re.match(r"(a+)+$", "a" * 40 + "b")
        if kind == "integer": 7 ** 300_000_000
        if kind == "sum": sum(range(10 ** 11))
"""
RELEASING = ["sleep", "processor", "lock", "child_process", "socket", "toDict", "generator", "serializer", "validator"]
HOLDING = ["regex", "integer", "sum"]
TIMES = 20 if SCALE > 1 else 1


def test_calls_that_block_the_loop_are_answered_or_located(make_project, report):
    """Fill the process with 100 threads, as many as faulthandler dumps."""
    idle = 95
    source = BLOCKERS.replace("IDLE", str(idle))
    project = load_project(
        make_project({"blocks": source}, **{"lambda": {"defaults": {"timeout_seconds": 2, "reserved_concurrency": 2}}})
    )
    expected = {
        kind: next(n for n, line in enumerate(("import dspy\n" + source).splitlines(), 1) if f'== "{kind}"' in line)
        for kind in HOLDING
    }
    lines: list[str] = []
    answered, named, where = Counter(), Counter(), Counter()

    async def run():
        async with LocalLambda(project, {"OPENAI_API_KEY": "k"}, lambda _, line: lines.append(line)) as local:
            function = local.function(CATALOGUE)
            for kind in [*RELEASING, *HOLDING] * TIMES:
                lines.clear()
                answer = await function.invoke(json.dumps({"inputs": {"kind": kind}}).encode())
                answered[kind] += answer.error == "DeadlineExceeded"
                text = "\n".join(lines)
                named[kind] += bool(re.search(rf'blocks\.py", line {expected.get(kind)} in aforward', text))
                where[kind] += '"message":"event loop blocked"' in text

    asyncio.run(run())
    unanswered = sum(TIMES - answered[kind] for kind in RELEASING)
    unnamed = sum(TIMES - named[kind] for kind in HOLDING)
    total = TIMES * len(RELEASING + HOLDING)
    report(total, sum(answered.values()), sum(named.values()), unanswered=unanswered, unnamed=unnamed, told=dict(where))
    assert (unanswered, unnamed) == (0, 0)
