"""The checks on the local Lambda, except what only AWS has (authorization, CloudWatch, schedules, deployments)."""

import asyncio
import json
import time

import boto3
import pytest

from dspy_lambda_infra.local.local import LocalLambda
from dspy_lambda_infra.project import load_project
from dspy_lambda_infra.verify.checks import answers, queues
from dspy_lambda_infra.verify.project import PROGRAM, write_project
from dspy_lambda_infra.verify.scenarios import SCENARIOS
from dspy_lambda_infra.verify.shared import PLACEHOLDERS
from dspy_lambda_infra.verify.stack import Stack

EVERYWHERE = {
    answers.a_call_is_answered,
    answers.the_shared_routes_answer,
    answers.an_unknown_path_is_404,
    answers.errors_are_readable,
    answers.a_provider_limit_reaches_the_caller,
    answers.a_throttle_is_the_gateways_own_answer,
    answers.a_failure_is_no_throttle,
    answers.a_used_up_process_is_replaced,
    queues.a_bad_record_leaves_its_batch,
    queues.a_limited_record_comes_back_after_a_backoff,
    queues.a_fifo_queue_keeps_its_order,
    answers.browsers_of_the_configured_origin_may_call,
}


class Concurrency:
    """The part of Lambda's API that the throttle check needs, for a local function."""

    def __init__(self, function):
        self.function = function

    def get_function_concurrency(self, **_):
        return {"ReservedConcurrentExecutions": self.function._limit}

    def put_function_concurrency(self, *, ReservedConcurrentExecutions, **_):
        self.function._limit = ReservedConcurrentExecutions


class LocalStack(Stack):
    """The local Lambda in the role of a deployed stack."""

    def client(self, service):
        return Concurrency(self.shared["function"]) if service == "lambda" else self.shared["sqs"]

    def program_calls(self, program=PROGRAM):
        return [call for call in self.shared["calls"] if call["program"] == program]


async def run(scenario, folder, mock, wanted=EVERYWHERE):
    """Run the scenario's checks that work on the local Lambda and return their results."""
    folder = write_project(
        folder, f"verify-{scenario.name}", scenario.config(PLACEHOLDERS), dict(scenario.server or {})
    )
    project = load_project(folder)
    kind = project.config.lambda_.api.kind
    calls = []

    def log(_, line):
        if '"program call"' in line:
            calls.append({**json.loads(line), "at": time.time()})

    async with (
        LocalLambda(project, {"DSPY_LAMBDA_API_BASE": mock, "MOCK_KEY": "the key"}, log) as local,
        local.mappings(30) as server,
        local.front(kind, 0) as url,
    ):
        outputs = {"ApiUrl": url, f"{PROGRAM}Url": url, "CatalogueUrl": url, f"{PROGRAM}FunctionName": "Answer"}
        for name, queue in local.queues.items():
            outputs |= {f"{name}QueueUrl": queue.url, f"{name}DeadLetterQueueUrl": queue.dead_letter_url}
        here = {"function": local.function(PROGRAM), "sqs": server.client, "calls": calls}
        stack = LocalStack(boto3.Session(), "verify", outputs, kind=kind, shared=here)
        checks = [check for check in scenario.checks if check in wanted]
        return {check.__name__: await asyncio.to_thread(check, stack) for check in checks}


@pytest.mark.parametrize("name", ["rest-iam", "http-iam", "url-iam"])
def test_the_checks_pass_on_the_local_lambda(name, mock, tmp_path):
    scenario = next(s for s in SCENARIOS if s.name == name)
    seen = asyncio.run(run(scenario, tmp_path / "project", mock))
    assert len(seen) == {"rest-iam": 11, "http-iam": 7, "url-iam": 7}[name]
    assert {check: holds for check, (holds, _) in seen.items()} == dict.fromkeys(seen, True), seen


def test_a_wrong_key_fails_the_first_check_on_the_local_lambda(mock, tmp_path, monkeypatch):
    """The mock checks keys: otherwise it would answer calls without one."""
    monkeypatch.setattr("tests.infra.verify.conftest.Keys.value", "another key")
    scenario = next(s for s in SCENARIOS if s.name == "http-iam")
    seen = asyncio.run(run(scenario, tmp_path / "project", mock, {answers.a_call_is_answered}))
    holds, said = seen["a_call_is_answered"]
    assert holds is False
    assert said.startswith("502")
