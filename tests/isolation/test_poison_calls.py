"""Poisonous calls over HTTP and direct invocations: each fails alone, and the next healthy call is answered."""

import asyncio
import json

import pytest

from dspy_lambda_infra.local.events import Request, rest_event
from dspy_lambda_infra.local.local import CATALOGUE, LocalLambda
from dspy_lambda_infra.project import load_project
from tests.isolation.conftest import SCALE
from tests.isolation.poison import BLOCK, KILL, POISON, RAISE

KINDS = [*RAISE, *BLOCK, *KILL] if SCALE > 1 else [*RAISE, "slow_validator", "exit"]


def http(program, inputs):
    body = json.dumps(inputs).encode()
    return rest_event(Request("POST", f"/{program}", headers=[("Content-Type", "application/json")], body=body))


def direct(program, inputs):
    return {"program": program, "inputs": inputs}


def outcome_of(answer):
    """Return what the caller sees: an HTTP status or the error's name."""
    if answer.error is not None:
        return json.loads(answer.payload)["errorType"]
    return json.loads(answer.payload).get("statusCode", "done")


@pytest.mark.parametrize("event", [http, direct])
def test_the_call_after_a_poisonous_one_succeeds(make_project, models, tmp_path, event, report):
    runs = tmp_path / "runs"
    runs.touch()
    project = make_project({"poison": POISON}, **{"lambda": {"defaults": {"timeout_seconds": 2, "memory_mb": 512}}})
    variables = {"OPENAI_API_KEY": "k", "DSPY_LAMBDA_API_BASE": models.url, "RUNS": str(runs)}
    told = {}

    async def run():
        async with LocalLambda(load_project(project), variables, lambda *_: None) as local:
            function = local.function(CATALOGUE)
            for n, kind in enumerate(KINDS):
                told[kind] = outcome_of(await function.invoke(json.dumps(event("Bad", {"kind": kind})).encode()))
                for fine in ("Fine", "AFine"):
                    answer = await function.invoke(json.dumps(event(fine, {"n": n})).encode())
                    assert outcome_of(answer) in (200, "done"), (kind, answer)

    asyncio.run(run())
    report(3 * len(KINDS), 2 * len(KINDS), len(KINDS), told=told)
    # 500 for a call that raises, 504 for one that blocks; only one that ends the process has neither.
    assert {told[kind] for kind in RAISE} == {500 if event is http else "ProgramFailed"}
    assert {told[kind] for kind in BLOCK if kind in told} == {504 if event is http else "DeadlineExceeded"}
    assert runs.read_text().count("\n") == 3 * len(KINDS) - ("slow_validator" in KINDS)
