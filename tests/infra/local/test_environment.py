"""One execution environment between two events."""

import asyncio
import json

from dspy_lambda_infra.local.local import CATALOGUE

LINGERS = """
import asyncio, os, sys, time, uuid

PROCESS = str(uuid.uuid4())

def once(seconds, then=None):
    client = sys.modules["awslambdaric.lambda_runtime_client"].LambdaRuntimeClient
    wait = client.wait_next_invocation

    def late(self):
        client.wait_next_invocation = wait
        time.sleep(seconds)
        if then:
            os._exit(1)
        return wait(self)

    client.wait_next_invocation = late

class Lingers(dspy.Module):
    async def aforward(self, takes: float = 0, lingers: float = 0, leaves: bool = False) -> str:
        await asyncio.sleep(takes)
        if lingers:
            once(lingers, leaves)
        return PROCESS
"""


def processes_of(make_local, project, inputs):
    """Return which process answered each of the consecutive events."""

    async def run():
        async with make_local(project) as local:
            function = local.function(CATALOGUE)
            answers = [await function.invoke(json.dumps({"inputs": one}).encode()) for one in inputs]
        assert [answer.error for answer in answers] == [None] * len(inputs)
        return [json.loads(answer.payload)["outputs"]["result"] for answer in answers]

    return asyncio.run(run())


def test_an_events_timeout_starts_when_the_environment_requests_it(make_project, make_local):
    project = make_project({"lingers": LINGERS}, **{"lambda": {"defaults": {"timeout_seconds": 4}}})
    first, second = processes_of(make_local, project, [{"lingers": 3}, {"takes": 2}])
    assert first == second


def test_an_environment_that_exits_after_its_answer_loses_no_event(make_project, make_local):
    project = make_project({"lingers": LINGERS}, **{"lambda": {"defaults": {"timeout_seconds": 4}}})
    first, second = processes_of(make_local, project, [{"lingers": 0.2, "leaves": True}, {}])
    assert first != second
