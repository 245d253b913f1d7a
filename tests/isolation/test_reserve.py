"""A batch cut off by the deadline is answered before Lambda's timeout, with any share of a core."""

import asyncio
import json

import pytest

from dspy_lambda_infra.local.local import LocalLambda
from dspy_lambda_infra.project import load_project
from tests.isolation.conftest import SCALE
from tests.support import AECHO, ECHO, failures, sqs

# The smallest function would need more than a quarter of a short timeout, which is the maximum reserve.
TIMEOUT_SECONDS, MEMORY_MB = (30, [128, 256, 1024]) if SCALE > 1 else (15, [256])


@pytest.mark.parametrize("source", [ECHO, AECHO], ids=["sync", "async"])
@pytest.mark.parametrize("memory_mb", MEMORY_MB)
def test_a_thousand_records_are_answered_in_time(make_project, models, report, memory_mb, source):
    name = "Echo" if source is ECHO else "AEcho"
    settings = {"timeout_seconds": TIMEOUT_SECONDS, "memory_mb": memory_mb}
    project = load_project(make_project({"echo": source}, **{"lambda": {"defaults": settings}}))
    models.behave(delay_seconds=60)
    lines: list = []

    async def run():
        variables = {"OPENAI_API_KEY": "k", "DSPY_LAMBDA_API_BASE": models.url}
        async with LocalLambda(project, variables, lambda _, line: lines.append(line), limit_resources=True) as local:
            if local.unlimited:
                pytest.skip(f"no limits here: {local.unlimited}")
            batch = json.dumps(sqs(*[{"question": "q"}] * 1000)).encode()
            return await local.function(name).invoke(batch)

    answer = asyncio.run(run())
    (done,) = [line for line in map(json.loads, lines) if line.get("type") == "platform.report"]
    taken = done["record"]["metrics"]["durationMs"] / 1000
    assert answer.error is None, answer
    assert len(failures(json.loads(answer.payload))) == 1000
    report(1000, 0, 1000, memory_mb=memory_mb, before_the_kill_s=round(TIMEOUT_SECONDS - taken, 2))
